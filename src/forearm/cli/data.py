"""`forearm data`: which data sets there are, where they are, and fetching them."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Column, Table

from forearm.cli.complete import fetchable
from forearm.cli.examples import ending
from forearm.cli.exits import Exit

app = typer.Typer(help="List, check and fetch data sets.", no_args_is_help=True)


@app.command("list", epilog=ending("data list"))
def list_(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    verify: Annotated[bool, typer.Option("--verify", help="Check what was fetched against the sha256 recorded then.")] = False,
) -> None:
    """List the data sets by name, and which are here (FOREARM_DATA)."""
    from forearm.jobs.data import listing

    rows = listing(verify)
    if as_json:
        typer.echo(json.dumps([asdict(row) for row in rows], indent=1))
    else:
        heads = ("name", "here", "pictures", "size", "classes", "source", "licence", *(["check"] if verify else []))
        table = Table(*(Column(head, overflow="fold") for head in heads))
        for row in rows:
            here = (
                f"{', '.join(row.present)} in {row.where}"
                if row.present
                else ("no, can be fetched" if row.fetchable else "no" if row.classes else "-")
            )
            counts = ", ".join(f"{split} {count:,}" if count else split for split, count in row.splits.items())
            cells = [row.name, here, counts, row.shape, str(row.classes or "any"), row.source, row.licence]
            table.add_row(*cells, *([row.check or "-"] if verify else []))
        Console(width=None if Console().is_terminal else 160).print(table)
    if any(row.check not in ("", "ok", "not fetched") for row in rows):
        raise typer.Exit(Exit.FAILED)


@app.command(epilog=ending("data fetch"))
def fetch(
    name: Annotated[str, typer.Argument(autocompletion=fetchable, help="A data set of `forearm data list`, for example cifar10.")],
    to: Annotated[Path | None, typer.Option(help="The folder that holds the data sets (default: FOREARM_DATA).")] = None,
) -> None:
    """Fetch a data set from its publisher, go on where an earlier try broke off, check it, and unpack it into DIR/NAME.

    Where there is no network, put the published file into DIR/NAME by hand and run the same command.
    """
    from forearm.data.unpack import FetchError
    from forearm.jobs.data import get

    def progress(file: str, there: int, size: int) -> None:
        if sys.stderr.isatty():
            typer.echo(f"\r{file}  {there / 2**20:.1f} of {size / 2**20:.1f} MB{chr(10) if there == size else ''}", err=True, nl=False)

    try:
        folder, new = get(name, to, report=progress)
    except FetchError as error:
        typer.echo(f"forearm: {error}", err=True)
        raise typer.Exit(Exit.FAILED) from None
    typer.echo(f"{folder}: fetched {', '.join(new)}" if new else f"{folder}: all there, as published")
    if to is not None:
        typer.echo(f"for use by name: export FOREARM_DATA={to.resolve()}", err=True)
