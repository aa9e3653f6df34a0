"""What `forearm models measure` and `verify` do: clean and PGD accuracy with intervals, and whether a model works."""

from __future__ import annotations

import inspect
import shlex
from collections.abc import Callable
from pathlib import Path

import torch

from forearm.attacks.pgd import pgd
from forearm.core.noise import Noise
from forearm.core.precision import fast, verdict
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.data.batches import Pictures
from forearm.errors import ArtifactError, BudgetError, InputError, SpecError
from forearm.evaluate.statistics import wilson
from forearm.models.blocks import channels_of
from forearm.models.card import Card, Measured, write_card
from forearm.models.load import Model, load_model, locate
from forearm.registry import parse, resolve

Progress = Callable[[int, int], None]  # examples done, examples in all


def pictures_for(card: Card, folder: Path | None = None, examples: int | None = None) -> Pictures:
    """The test split of the card's data set, at the card's size where the data set has sizes; the first `examples`."""
    if not card.data:
        raise SpecError(f"{card.name}: its card names no data set; for example data = 'cifar10'")
    name, keywords = parse(card.data)
    if "side" in inspect.signature(resolve(sets.DATASETS, name)).parameters:
        keywords["side"] = card.size
    inside = ", ".join(f"{key}={value!r}" for key, value in keywords.items())
    pictures = sets.load(f"{name}({inside})", "test", folder).first(examples)
    if len(pictures.classes) != len(card.classes):
        raise InputError(
            f"{card.name}: {len(card.classes)} classes, the data set {name!r} has {len(pictures.classes)}; "
            "a model of the same classes, for example 'mobilenet_v2_ten=PATH' for imagenette"
        )
    return pictures


def accuracies(
    model: Model,
    pictures: Pictures,
    threat: Threat | None,
    *,
    steps: int = 20,
    batch: int = 100,
    seed: int = 0,
    report: Progress = lambda _done, _all: None,
) -> tuple[int, int]:
    """How many pictures the model gets right, and how many of those PGD leaves right (0 where `threat` is None).

    Verdicts are taken on the model itself in float32; gradients on a faster twin. BudgetError where an attacked picture
    lies outside the threat. Cost: one forward pass a picture, and `steps` forward and backward passes for those right.
    """
    device = next(model.parameters()).device
    twin = None if threat is None else fast(model)
    clean = robust = done = 0
    for part in pictures.batches(batch):
        x, y = part.x.to(device), part.y.to(device)
        right, _ = verdict(model, x, y)
        clean += int(right.sum())
        if threat is not None and right.any():
            x, y, ids = x[right], y[right], part.ids[right.cpu()]
            x_adv = pgd(model, x, y, threat=threat, noise=Noise(seed, ids), steps=steps, twin=twin, stop=True)
            far = float(threat.distance(x_adv, x).max())
            if far > threat.eps * (1 + 1e-4) + 1e-6:
                raise BudgetError(f"measure: pgd went {far:.6g} far; at most {threat.eps:.6g}, the radius of {threat}")
            robust += int(verdict(model, x_adv, y)[0].sum())
        done += len(part.y)
        report(done, len(pictures))
    return clean, robust


def measure(
    name: str,
    *,
    threat: str | None = None,
    examples: int | None = None,
    steps: int = 20,
    folder: Path | None = None,
    device: str | torch.device = "cpu",
    report: Progress = lambda _done, _all: None,
) -> tuple[Card, tuple[Measured, ...]]:
    """The model's card, and its figures: clean accuracy, and PGD accuracy at `threat` or at the card's own, if any."""
    model = load_model(name, device=device)
    against = threat or model.card.threat
    bound = None if against is None else Threat.parse(against)
    pictures = pictures_for(model.card, folder, examples)
    clean, robust = accuracies(model, pictures, bound, steps=steps, report=report)
    words = ["forearm", "models", "measure", name]
    words += [] if examples is None else ["--examples", str(examples)]
    words += [] if threat is None else ["--threat", threat]
    words += [] if steps == 20 else ["--steps", str(steps)]
    figures = [("clean accuracy", clean)] + ([] if bound is None else [(f"PGD-{steps} accuracy at {bound}", robust)])
    split, n = f"{parse(model.card.data)[0]} test", len(pictures)
    return model.card, tuple(
        Measured(
            what=f"{what}, {split}",
            value=round(right / n, 6),
            interval=(round(wilson(right, n)[0], 6), round(wilson(right, n)[1], 6)),
            n=n,
            command=shlex.join(words),
        )
        for what, right in figures
    )


def add_to_card(name: str, figures: tuple[Measured, ...]) -> Path:
    """Write the figures into the model's card; its path. ArtifactError for a model without a card of its own."""
    located = locate(name)
    if located.card_file is None:
        raise ArtifactError(f"{name}: it has no card to write to; an embedded model, or weights with a card.toml")
    write_card(located.card.with_measured(figures), located.card_file)
    return located.card_file


def check(name: str) -> Card:
    """Load the model (which checks its sha256 and every shape) and run one forward pass on grey; its card.

    ArtifactError where the file, the shapes or the logits are wrong.
    """
    model = load_model(name)
    with torch.no_grad():
        logits = model(torch.full((2, channels_of(model), model.size, model.size), 0.5))
    if logits.shape != (2, len(model.classes)) or not bool(logits.isfinite().all()):
        raise ArtifactError(f"{name}: logits of shape {tuple(logits.shape)}; finite ones, {len(model.classes)} a picture")
    return model.card
