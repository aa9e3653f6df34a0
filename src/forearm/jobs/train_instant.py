"""What `forearm train instant` does: a backbone, a network that learns to write its changes, fp16 weights and a card usable by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from forearm.core.precision import fast
from forearm.data import sets
from forearm.data.augment import augment
from forearm.data.batches import Pictures, Shuffled
from forearm.defenses.training.instant import instant
from forearm.defenses.training.loop import Plan, Report, Step, fit
from forearm.errors import SpecError
from forearm.jobs.recipe import checked, recipe_values
from forearm.jobs.train import write_weights
from forearm.models.architectures import ARCHITECTURES
from forearm.models.card import Card, write_card
from forearm.models.instant import Instant
from forearm.models.load import Model, load_model
from forearm.models.weights import file_sum
from forearm.registry import bind


class InstantSettings(BaseModel):
    """One training run of an instant release. A recipe file in TOML has these names; the command line overrides it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = "cifar10"
    folder: Path | None = None
    examples: int | None = Field(None, ge=1, description="only the first so many training pictures")
    backbone: str = Field("cifar10_backbone", description="whose gradients teach; a name, a card or a folder")
    arch: str = Field("instant(width=32)", description="of the network that is trained")
    low: float = Field(2.0, gt=0.0, description="smallest budget, in levels of 1/255")
    high: float = Field(12.0, gt=0.0, description="largest budget, in levels of 1/255")
    spread: float = Field(1.0, ge=0.0, description="noise around the release, in units of eps")
    coarse: float = Field(0.75, gt=0.0, le=1.0, description="size of the backbone's coarse look; 1: none")
    own: float = Field(0.2, ge=0.0, description="weight of the network's own classification")
    smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    augment: str = "crop_flip"
    batch: int = Field(128, ge=2)
    epochs: int = Field(6, ge=1)
    rate: float = Field(0.2, gt=0.0)
    warm: float = Field(0.15, gt=0.0, lt=1.0)
    weight_decay: float = Field(5e-4, ge=0.0)
    average: float = Field(0.998, ge=0.0, lt=1.0)
    bf16: bool = True
    seed: int = 0
    device: str | None = Field(None, description="cpu or cuda; a GPU if there is one")

    @classmethod
    def read(cls, recipe: Path | None, overrides: dict[str, Any]) -> InstantSettings:
        """A recipe file, then what the command line says. SpecError in one line for anything unknown."""
        return checked(cls, recipe_values(recipe, overrides, "cifar10_instant.toml"), recipe or "instant")

    def plan(self) -> Plan:
        return Plan(self.epochs, self.rate, warm=self.warm, weight_decay=self.weight_decay, average=self.average, bf16=self.bf16)

    def step(self, backbone: Model) -> Step:
        """The recipe against a loaded backbone."""
        return instant(
            fast(backbone), low=self.low / 255.0, high=self.high / 255.0, spread=self.spread, coarse=self.coarse, own=self.own,
            smoothing=self.smoothing,
        )  # fmt: skip


def train_instant(settings: InstantSettings, out: Path, report: Report = lambda _: None, stop_after: int | None = None) -> nn.Module:
    """Train one network; `out` afterwards holds checkpoint.pt, log.csv, weights.safetensors (fp16) and card.toml.

    Broken off anywhere, the same call goes on after the last whole epoch, to the same weights. SpecError for an architecture that writes no
    change, and for a backbone of other classes than the data.
    """
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    backbone = load_model(settings.backbone, device=device)
    pictures = sets.load(settings.data, "train", settings.folder, first=settings.examples)
    if backbone.classes != pictures.classes:
        raise SpecError(
            f"instant: the backbone {settings.backbone!r} knows other classes than {settings.data!r}; one trained on these pictures"
        )
    network = _network(settings, len(pictures.classes)).to(device)
    batches = Shuffled(pictures, settings.batch, augment(settings.augment), settings.seed)
    trained = fit(network, settings.step(backbone), batches, settings.plan(), folder=out, report=report, stop_after=stop_after)
    write_weights(trained, out / "weights.safetensors")
    write_card(trained_card(settings, backbone, pictures, out / "weights.safetensors"), out / "card.toml")
    return trained


def _network(settings: InstantSettings, classes: int) -> Instant:
    """The architecture with random weights: a function of the seed; no global generator is left changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network: nn.Module = bind(ARCHITECTURES, settings.arch)(classes=classes)
    if not isinstance(network, Instant):
        raise SpecError(f"instant: got arch={settings.arch!r}; a network that writes changes, for example 'instant(width=32)'")
    return network


def trained_card(settings: InstantSettings, backbone: Model, pictures: Pictures, weights: Path) -> Card:
    """A card for what was trained, named after its folder; `settings` holds the sum of the backbone that taught it."""
    one = augment(settings.augment)(pictures.images[:1], torch.Generator().manual_seed(0))
    how = settings.model_dump(mode="json", exclude={"folder", "device", "data", "arch", "examples"})
    how |= {"backbone_sha256": backbone.card.sha256}
    return Card(
        name=weights.parent.name,
        arch=settings.arch,
        weights=weights.name,
        sha256=file_sum(weights),
        classes=pictures.classes,
        size=one.shape[-1],
        data=settings.data,
        recipe="instant",
        settings=" ".join(f"{name}={value!r}" for name, value in how.items()),
    )
