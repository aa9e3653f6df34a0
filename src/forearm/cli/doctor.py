"""`forearm doctor`: what this machine has, and what will be slow on it."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table


def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Versions, devices, weights, and what would be slow here and why. Exit code 1 where something is broken."""
    from forearm.jobs.doctor import examine

    findings = list(examine())
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=1))
    else:
        colours = {"ok": "green", "slow": "yellow", "broken": "red"}
        table = Table("what", "value", "state", "note")
        for f in findings:
            table.add_row(f.what, f.value, f"[{colours[f.state]}]{f.state}[/]", f.note)
        Console(width=None if Console().is_terminal else 120).print(table)
    if any(finding.state == "broken" for finding in findings):
        raise typer.Exit(1)
