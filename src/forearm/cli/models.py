"""`forearm models`: which models there are, what they are, whether they are intact, and how good."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from forearm.cli import complete
from forearm.cli.examples import ending

if TYPE_CHECKING:
    from forearm.models.card import Card, Measured

app = typer.Typer(help="List, show, check and measure models.", no_args_is_help=True)

Name = Annotated[
    str,
    typer.Argument(
        autocompletion=complete.models, help="A model: an embedded name, one of the zoo, a card.toml or its folder, or 'KIND=PATH'."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list", epilog=ending("models list"))
def list_(as_json: Json = False) -> None:
    """List the embedded models, those of the zoo that are here, and the kinds of public checkpoints that 'KIND=PATH' reads."""
    from forearm.models.foreign import FOREIGN
    from forearm.models.load import ALIASES, embedded, locate
    from forearm.models.robustbench import ROBUSTBENCH
    from forearm.models.zoo import ZOO, zoo

    kinds = [*FOREIGN, *(f"robustbench:{name}" for name in ROBUSTBENCH)]
    cards, more = ([locate(name).card for name in names] for names in (embedded(), zoo()))
    if as_json:
        typer.echo(json.dumps({"embedded": [c.model_dump() for c in cards], "zoo": [c.model_dump() for c in more], "kinds": kinds}))
        return
    for card in cards:
        names = ", ".join(alias for alias, name in ALIASES.items() if name == card.name)
        _describe(card, f" ({names})" if names else "")
    if not cards:
        typer.echo("no embedded models")
    typer.echo("\nthe zoo:")
    for card in more:
        _describe(card)
    if absent := [name for name in ZOO if name not in zoo()]:
        typer.echo(f"not here: {', '.join(absent)}; the repository's zoo, or FOREARM_ZOO=/path/to/zoo")
    typer.echo("\npublic checkpoints, as KIND=PATH:")
    for kind in kinds:
        file = FOREIGN[kind].file if kind in FOREIGN else ""
        typer.echo(f"    {kind}{f'  (the name alone, with {file} in FOREARM_DATA)' if file else ''}")


@app.command(epilog=ending("models show"))
def show(name: Name, as_json: Json = False) -> None:
    """Print a model's card: architecture, classes, data, recipe, sha256, and what was measured."""
    from forearm.models.card import card_text
    from forearm.models.load import load_model, locate

    card = load_model(name).card if name.startswith("timm:") else locate(name).card
    typer.echo(json.dumps(card.model_dump()) if as_json else card_text(card).rstrip())


@app.command(epilog=ending("models verify"))
def verify(
    name: Annotated[
        str | None, typer.Argument(autocompletion=complete.models, help="A model; all embedded ones and those of the zoo if left out.")
    ] = None,
) -> None:
    """Check sha256 and shapes, and run one forward pass."""
    from forearm.errors import ForearmError
    from forearm.jobs.measure import check
    from forearm.models.load import embedded
    from forearm.models.zoo import zoo

    failed = False
    for one in [name] if name is not None else (*embedded(), *zoo()):
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


@app.command(epilog=ending("models measure"))
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
    """Measure clean and PGD accuracy on the test split, with 95 % Wilson intervals."""
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


def _describe(card: Card, aliases: str = "") -> None:
    """A model's line, and one for each of its figures."""
    typer.echo(f"{card.name}{aliases}  {card.size} px  {card.arch}")
    for figure in card.measured:
        typer.echo(f"    {_figure(figure)}")


def _figure(figure: Measured) -> str:
    low, high = figure.interval
    return f"{figure.what}: {figure.value:.2%} ({low:.2%} to {high:.2%}, n = {figure.n})"
