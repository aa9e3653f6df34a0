"""`forearm doctor`: what this machine has, and what will be slow on it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Say what this machine has: versions, devices, weights, and what would be slow and why."""
    from forearm.jobs.doctor import examine

    findings = list(examine())
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        colours = {"ok": "green", "slow": "yellow", "broken": "red"}
        table = Table("what", "value", "state", "note")
        for f in findings:
            table.add_row(f.what, f.value, f"[{colours[f.state]}]{f.state}[/]", escape(f.note))
        Console(width=None if Console().is_terminal else 120).print(table)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)
