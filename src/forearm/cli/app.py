"""The command line. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import forearm
from forearm.cli import data, models, train
from forearm.cli.audit import audit
from forearm.cli.doctor import doctor
from forearm.cli.examples import ending
from forearm.cli.exits import exit_for
from forearm.cli.protect import protect
from forearm.cli.report import report
from forearm.cli.serve import serve
from forearm.cli.verify import inspect, verify
from forearm.errors import ForearmError

app = typer.Typer(
    name="forearm",
    help="Forewarned is forearmed: defend picture classifiers, and measure it honestly.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
app.command(epilog=ending("protect"))(protect)
app.command(epilog=ending("verify"))(verify)
app.command(epilog=ending("inspect"))(inspect)
app.add_typer(models.app, name="models")
app.command(epilog=ending("audit"))(audit)
app.command(epilog=ending("report"))(report)
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")
app.command(epilog=ending("serve"))(serve)
app.command(epilog=ending("doctor"))(doctor)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(forearm.__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")] = False,
) -> None:
    """Forewarned is forearmed: defend picture classifiers, and measure it honestly."""


def main() -> None:
    """Run a command. What the project refuses on purpose is one line on stderr and a documented exit code."""
    try:
        app()
    except ForearmError as error:
        typer.echo(f"forearm: {error}", err=True)
        sys.exit(exit_for(error))
