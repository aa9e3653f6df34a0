"""`forearm models`: which models there are, what they are, whether they are intact, and how good."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from forearm.models.card import Measured

app = typer.Typer(help="List, show, check and measure models.", no_args_is_help=True)

Name = Annotated[str, typer.Argument(help="A model: an embedded name, a card.toml or its folder, or 'KIND=PATH'.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_(as_json: Json = False) -> None:
    """The embedded models, and the kinds of public checkpoints that 'KIND=PATH' reads."""
    from forearm.models.foreign import FOREIGN
    from forearm.models.load import ALIASES, embedded, locate
    from forearm.models.robustbench import ROBUSTBENCH

    kinds = [*FOREIGN, *(f"robustbench:{name}" for name in ROBUSTBENCH)]
    cards = [locate(name).card for name in embedded()]
    if as_json:
        typer.echo(json.dumps({"embedded": [card.model_dump() for card in cards], "kinds": kinds}))
        return
    for card in cards:
        names = ", ".join(alias for alias, name in ALIASES.items() if name == card.name)
        typer.echo(f"{card.name}{f' ({names})' if names else ''}  {card.size} px  {card.arch}")
        for figure in card.measured:
            typer.echo(f"    {_figure(figure)}")
    if not cards:
        typer.echo("no embedded models")
    typer.echo("\npublic checkpoints, as KIND=PATH:")
    for kind in kinds:
        typer.echo(f"    {kind}")


@app.command()
def show(name: Name, as_json: Json = False) -> None:
    """A model's card."""
    from forearm.models.card import card_text
    from forearm.models.load import load_model, locate

    card = load_model(name).card if name.startswith("timm:") else locate(name).card
    typer.echo(json.dumps(card.model_dump()) if as_json else card_text(card).rstrip())


@app.command()
def verify(name: Annotated[str | None, typer.Argument(help="A model; all embedded ones if left out.")] = None) -> None:
    """Check sha256 and shapes, and run one forward pass. Exit code 1 if any model fails."""
    from forearm.errors import ForearmError
    from forearm.jobs.measure import check
    from forearm.models.load import embedded

    failed = False
    for one in [name] if name is not None else embedded():
        try:
            card = check(one)
            typer.echo(f"ok      {one}  sha256 {card.sha256[:16]}  {len(card.classes)} classes at {card.size} px")
        except ForearmError as error:
            failed = True
            typer.echo(f"failed  {error}", err=True)
    if name is None and not embedded():
        typer.echo("no embedded models", err=True)
    if failed:
        raise typer.Exit(1)


@app.command()
def measure(
    name: Name,
    *,
    examples: Annotated[int | None, typer.Option(min=1, help="Only the first so many test pictures.")] = None,
    threat: Annotated[str | None, typer.Option(help="Threat of the attack (default: the card's).")] = None,
    steps: Annotated[int, typer.Option(min=1, help="PGD steps.")] = 20,
    folder: Annotated[Path | None, typer.Option(help="Where the data set lies (default: FOREARM_DATA).")] = None,
    device: Annotated[str, typer.Option(help="cpu, cuda or cuda:1.")] = "cpu",
    write: Annotated[bool, typer.Option("--write", help="Add the figures to the model's card.")] = False,
    as_json: Json = False,
) -> None:
    """Clean and PGD accuracy on the test split, with 95 % Wilson intervals."""
    from forearm.jobs import measure as job

    def progress(done: int, total: int) -> None:
        if sys.stderr.isatty():
            typer.echo(f"\r{done}/{total}{chr(10) if done == total else ''}", err=True, nl=False)

    card, figures = job.measure(name, threat=threat, examples=examples, steps=steps, folder=folder, device=device, report=progress)
    if write:
        typer.echo(f"wrote {job.add_to_card(name, figures)}", err=True)
    if as_json:
        typer.echo(json.dumps({"model": card.name, "measured": [figure.model_dump() for figure in figures]}))
    else:
        for figure in figures:
            typer.echo(_figure(figure))


def _figure(figure: Measured) -> str:
    low, high = figure.interval
    return f"{figure.what}: {figure.value:.2%} ({low:.2%} to {high:.2%}, n = {figure.n})"
