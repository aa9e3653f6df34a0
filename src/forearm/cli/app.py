"""The command line. Commands import what they need when they run, so that `--help` answers at once."""

from __future__ import annotations

import sys

import typer

from forearm.cli import train
from forearm.errors import ForearmError

app = typer.Typer(name="forearm", help="Forewarned is forearmed: defend picture classifiers, and measure it honestly.", no_args_is_help=True)
app.add_typer(train.app, name="train")


@app.callback()
def options() -> None:
    """Defend picture classifiers before release, at test time and at training time."""


def main() -> None:
    """Run a command; what the project refuses is one line on stderr and exit code 2."""
    try:
        app()
    except ForearmError as error:
        typer.echo(f"forearm: {error}", err=True)
        sys.exit(2)
