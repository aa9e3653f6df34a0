"""`forearm report`: what an audit found, as a page, plots, Markdown and CSV."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer


def report(
    store: Annotated[Path, typer.Argument(help="The store that `forearm audit` wrote.")],
    out: Annotated[Path, typer.Option("-o", "--out", help="The folder to write to.")] = Path("report"),
    data: Annotated[Path | None, typer.Option(help="Where the data sets lie, for before/after pictures (default: FOREARM_DATA).")] = None,
) -> None:
    """Write a self-contained report.html, report.md, plots/ and CSV tables from what an audit stored.

    The number that counts is the worst case over all attackers, those who know the defence and those who do not. Needs the extra `report`.
    """
    from forearm.report.write import write_report

    words = ["forearm", "report", str(store), *([] if out == Path("report") else ["-o", str(out)])]
    words += [] if data is None else ["--data", str(data)]
    files = write_report(store, out, data=data, command=shlex.join(words))
    typer.echo(str(files[0]))
    typer.echo(f"and {len(files) - 1} more files in {out}", err=True)
