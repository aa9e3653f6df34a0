"""What `forearm train` does: settings -> pictures, network, recipe -> fit -> fp16 weights and a card that is usable at once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from safetensors.torch import save
from torch import nn

from forearm.core.threat import Threat
from forearm.data import sets
from forearm.data.augment import augment
from forearm.data.batches import Pictures, Shuffled
from forearm.defenses.training.adversarial import adversarial, standard
from forearm.defenses.training.denoising import denoising
from forearm.defenses.training.loop import Plan, Report, Step, fit
from forearm.defenses.training.trades import trades
from forearm.errors import ArtifactError, SpecError
from forearm.jobs.recipe import checked, recipe_values
from forearm.models.architectures import ARCHITECTURES
from forearm.models.card import Card, write_card
from forearm.models.weights import fill, read_weights
from forearm.registry import bind


class TrainSettings(BaseModel):
    """One training run. A recipe file in TOML has these names; the command line overrides it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = "cifar10"
    folder: Path | None = None
    arch: str = "preact_resnet(width=32)"
    threat: str = "linf:8/255"
    steps: int = Field(
        0, ge=0, description="ascents of the inner attack; 0 is N-FGSM (adversarial), or a random point of the ball (trades)"
    )
    step: float = Field(0.25, gt=0.0, description="length of one of them, in units of eps")
    beta: float = Field(6.0, ge=0.0, description="weight of TRADES' divergence: more is more robust, less is more accurate")
    reach: float = Field(2.0, ge=0.0, description="noise of N-FGSM, in units of eps: more is more robust, less is more accurate")
    level: float = Field(0.1, gt=0.0, le=1.0, description="most deviation of the noise that a denoiser takes away")
    start: Path | None = Field(None, description="weights.safetensors of an earlier run to begin from")
    trunk: Path | None = Field(
        None, description="weights.safetensors of another network whose layers of equal name and shape to begin from"
    )
    augment: str = "crop_flip"
    smoothing: float = Field(0.0, ge=0.0, lt=1.0)
    batch: int = Field(128, ge=2)
    epochs: int = Field(12, ge=1)
    rate: float = Field(0.2, gt=0.0)
    warm: float = Field(0.25, gt=0.0, lt=1.0)
    weight_decay: float = Field(5e-4, ge=0.0)
    average: float = Field(0.998, ge=0.0, lt=1.0)
    optimizer: str = Field("sgd", description="sgd, or adamw with a rate of about 0.001 and a weight_decay of about 0.05")
    bf16: bool = True
    seed: int = 0
    device: str | None = Field(None, description="cpu or cuda; a GPU if there is one")
    examples: int | None = Field(None, ge=1, description="only the first so many training pictures")

    @classmethod
    def read(cls, recipe: Path | None, overrides: dict[str, Any]) -> TrainSettings:
        """A recipe file, then what the command line says."""
        return checked(cls, recipe_values(recipe, overrides, "cifar10_backbone.toml"), recipe or "train")

    def plan(self) -> Plan:
        return Plan(
            self.epochs,
            self.rate,
            warm=self.warm,
            weight_decay=self.weight_decay,
            average=self.average,
            bf16=self.bf16,
            optimizer=self.optimizer,
        )


LAST = ("linear.", "fc.", "head.")  # the last layers of the architectures


def recipe_step(kind: str, settings: TrainSettings) -> Step:
    """The recipe by name: `standard`, `adversarial`, `trades` or `denoising`."""
    threat, s = Threat.parse(settings.threat), settings
    recipes: dict[str, Callable[[], Step]] = {
        "standard": lambda: standard(s.smoothing),
        "adversarial": lambda: adversarial(threat, s.steps, s.reach, s.smoothing, s.step),
        "trades": lambda: trades(threat, beta=s.beta, steps=s.steps, step=s.step, seed=s.seed),
        "denoising": lambda: denoising(s.level, s.seed),
    }
    if kind not in recipes:
        raise SpecError(f"recipe: got {kind!r}; one of {', '.join(recipes)}, for example 'adversarial'")
    return recipes[kind]()


def train(kind: str, settings: TrainSettings, out: Path, report: Report = lambda _: None, stop_after: int | None = None) -> nn.Module:
    """Train one network; `out` afterwards holds checkpoint.pt, log.csv, weights.safetensors (fp16) and card.toml."""
    step = recipe_step(kind, settings)
    pictures = sets.load(settings.data, "train", settings.folder).first(settings.examples)
    torch.manual_seed(settings.seed)
    model: nn.Module = bind(ARCHITECTURES, settings.arch)(classes=len(pictures.classes))
    if kind == "denoising" and not callable(getattr(model, "regenerate", None)):
        raise SpecError(f"train denoising: {settings.arch} makes no pictures; an autoencoder, for example 'denoiser(width=32)'")
    if settings.start is not None:
        fill(model, read_weights(settings.start)[0], str(settings.start))
    if settings.trunk is not None:
        take_trunk(model, settings.trunk)
    model.to(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    batches = Shuffled(pictures, settings.batch, augment(settings.augment), settings.seed)
    trained = fit(model, step, batches, settings.plan(), folder=out, report=report, stop_after=stop_after)
    write_weights(trained, out / "weights.safetensors")
    write_card(trained_card(kind, settings, pictures, out / "weights.safetensors"), out / "card.toml")
    return trained


def take_trunk(model: nn.Module, trunk: Path) -> None:
    """Fill the layers that another network has too (equal name and shape), all but the last one. ArtifactError if there are none."""
    known, own = read_weights(trunk)[0], model.state_dict()
    shared = {name: t for name, t in known.items() if name in own and own[name].shape == t.shape and not name.startswith(LAST)}
    if not any(t.ndim == 4 for t in shared.values()):
        raise ArtifactError(f"{trunk}: shares no convolution with this network; weights of a related network of equal width")
    model.load_state_dict(shared, strict=False)


def write_weights(model: nn.Module, path: Path) -> None:
    """Floating-point weights as fp16 safetensors; counters stay integers. Written whole or not at all."""
    state = {
        name: (t.half() if t.is_floating_point() else t).contiguous().cpu()
        for name, t in model.state_dict().items()
        if not name.endswith("num_batches_tracked")
    }
    half = path.with_suffix(".part")
    half.write_bytes(save(state))
    half.replace(path)


def trained_card(kind: str, settings: TrainSettings, pictures: Pictures, weights: Path) -> Card:
    """A card for what was trained, named after its folder. Accuracies are added by `forearm models measure --write`."""
    one = augment(settings.augment)(pictures.images[:1], torch.Generator().manual_seed(0))
    how = settings.model_dump(mode="json", exclude_defaults=True, exclude={"folder", "device"})
    return Card(
        name=weights.parent.name,
        arch=settings.arch,
        weights=weights.name,
        sha256=hashlib.sha256(weights.read_bytes()).hexdigest(),
        classes=pictures.classes,
        size=one.shape[-1],
        data=settings.data,
        recipe=kind,
        settings=" ".join(f"{name}={value!r}" for name, value in how.items()),
        threat=settings.threat if kind in ("adversarial", "trades") else None,
    )
