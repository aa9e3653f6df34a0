"""What `forearm train challenge` does: the gradient concealment challenge's two stages, and a network that is usable by name at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn

from forearm.data import sets
from forearm.data.augment import augment
from forearm.data.batches import Pictures, Shuffled
from forearm.defenses.training.challenge import Ingredients, challenge
from forearm.defenses.training.loop import OPTIMIZERS, SCHEDULES, Plan, fit
from forearm.errors import ArtifactError, SpecError
from forearm.jobs.recipe import checked, recipe_values
from forearm.jobs.train import take_trunk, write_weights
from forearm.models.architectures import ARCHITECTURES
from forearm.models.card import Card, write_card
from forearm.models.load import Model, load_model
from forearm.models.weights import file_sum, fill
from forearm.registry import bind

Told = Callable[[str, dict[str, float]], None]  # a stage, and its epoch's figures
PLACED_SEED = 1 << 20  # far from the seeds that people give: the second stage draws other numbers than the first


class ChallengeSettings(BaseModel):
    """One run. A recipe file in TOML has these names; the command line overrides it. As it stands: from scratch, every ingredient."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: str = "cifar10"
    folder: Path | None = None
    examples: int | None = Field(None, ge=1, description="only the first so many training pictures")
    arch: str = "convnext_cifar(head='mlp')"
    trunk: Path | None = Field(None, description="weights file of a pretrained network whose layers of equal name and shape to begin from")
    augment: str = Field("challenge", description="the 32 operations: challenge, or challenge224 for photos; or any other")
    mixup: float = Field(1.0, ge=0.0, description="weight of MixUp's cross-entropy; 0 leaves it out")
    cutmix: float = Field(1.0, ge=0.0, description="weight of CutMix's cross-entropy; 0 leaves it out")
    fgsm: float = Field(1.0, ge=0.0, description="weight of the mean cross-entropy on four FGSM pictures; 0 leaves them out")
    through: str = Field("bare", description="FGSM's gradient: bare, or gcm (through the concealment module: noise)")
    least: float = Field(26 / 32, gt=0.0, lt=1.0, description="smallest side of resize-and-pad in the second stage; published 218/224")
    batch: int = Field(128, ge=2)
    epochs: int = Field(20, ge=0, description="of the first stage, without resize-and-pad")
    placed_epochs: int = Field(5, ge=0, description="of the second stage, with it; 0 leaves it out")
    optimizer: str = Field("adamax", description=", ".join(OPTIMIZERS))
    rate: float = Field(1e-3, gt=0.0, description="of the head, and of everything without `trunk`")
    placed_rate: float | None = Field(
        None, gt=0.0, description="the same in the second stage (default: a tenth where the first is a one_cycle)"
    )
    backbone: float | None = Field(
        None, gt=0.0, description="the rate of all but the head, as a share of it (default: 0.1 with `trunk`, else 1)"
    )
    schedule: str = Field("step(every=70, factor=0.5)", description=f"{', '.join(SCHEDULES)}, in call syntax")
    warm: float = Field(0.25, gt=0.0, lt=1.0, description="share of a one_cycle in which the rate rises")
    weight_decay: float = Field(1e-3, ge=0.0)
    average: float = Field(0.998, ge=0.0, lt=1.0)
    bf16: bool = True
    seed: int = 0
    device: str | None = Field(None, description="cpu or cuda; a GPU if there is one")

    @classmethod
    def read(cls, recipe: Path | None, overrides: dict[str, Any]) -> ChallengeSettings:
        """A recipe file, then what the command line says. SpecError in one line for anything unknown, before anything is trained."""
        settings = checked(cls, recipe_values(recipe, overrides, "cifar10_challenge.toml"), recipe or "challenge")
        settings.ingredients(None)
        bind(SCHEDULES, settings.schedule)
        if settings.optimizer not in OPTIMIZERS:
            raise SpecError(f"optimizer: got {settings.optimizer!r}; one of {', '.join(OPTIMIZERS)}, for example 'adamax'")
        if settings.epochs + settings.placed_epochs == 0:
            raise SpecError("challenge: got epochs=0, placed_epochs=0; one of them above 0, for example epochs=20, placed_epochs=5")
        return settings

    def ingredients(self, least: float | None) -> Ingredients:
        """The loss of a stage that shrinks pictures down to `least`, or leaves their places."""
        return Ingredients(self.mixup, self.cutmix, self.fgsm, self.through, least)

    def plan(self, epochs: int, rate: float) -> Plan:
        """How a stage of so many epochs at that rate is optimised."""
        share = self.backbone if self.backbone is not None else (1.0 if self.trunk is None else 0.1)
        return Plan(
            epochs,
            rate,
            warm=self.warm,
            weight_decay=self.weight_decay,
            average=self.average,
            bf16=self.bf16,
            optimizer=self.optimizer,
            schedule=self.schedule,
            backbone=share,
        )

    def said(self) -> str:
        """Everything that decides the weights, as a card has it."""
        values = self.model_dump(mode="json", exclude={"folder", "device"})
        return " ".join(f"{name}={value!r}" for name, value in values.items() if value is not None)


@dataclass(frozen=True, slots=True)
class Stage:
    """One of the two trainings. least: None without resize-and-pad; said: the settings that decide it, as text."""

    name: str
    folder: Path
    plan: Plan
    least: float | None
    seed: int
    said: str


def stages(settings: ChallengeSettings, out: Path) -> list[Stage]:
    """The stages that have epochs. The last one's folder is `out`; a first one before it is in `out/first` and does not depend on the second's settings."""
    own = settings.model_dump(mode="json", exclude={"folder", "device", "least", "placed_epochs", "placed_rate"})
    alone = settings.placed_epochs == 0
    first_said = " ".join(f"{name}={value!r}" for name, value in own.items() if value is not None)
    found = []
    if settings.epochs:
        plan = settings.plan(settings.epochs, settings.rate)
        found.append(Stage("first", out if alone else out / "first", plan, None, settings.seed, settings.said() if alone else first_said))
    if not alone:
        cyclic = settings.schedule.strip().startswith("one_cycle") and settings.epochs > 0
        rate = settings.placed_rate or (settings.rate / 10 if cyclic else settings.rate)
        plan = settings.plan(settings.placed_epochs, rate)
        found.append(Stage("placed", out, plan, settings.least, settings.seed + PLACED_SEED, settings.said()))
    return found


def train_challenge(
    settings: ChallengeSettings, out: Path, report: Told = lambda _stage, _row: None, stop_after: int | None = None
) -> nn.Module:
    """Train without resize-and-pad, then fine-tune with it; what an earlier call finished is taken as it is.

    `out` afterwards holds checkpoint.pt, log.csv, weights.safetensors (fp16) and card.toml, and `out/first` the same for the first stage where there are two.
    The second begins at the first's averaged weights as they are on disk. The network is the bare one: concealment and resize-and-pad stand before it
    as test-time defences ("conceal+resize_pad(least=...)"). Broken off anywhere, the same call goes on to the same weights. `report` is told each
    epoch; `stop_after` ends the run after so many epochs of both stages together and leaves it resumable. ArtifactError for a folder that was
    begun with other settings; InputError and SpecError for data and names that do not exist.
    """
    pictures = sets.load(settings.data, "train", settings.folder, first=settings.examples)
    found = stages(settings, out)
    model: Model | None = None
    left = stop_after
    for stage in found:
        network = _network(settings, pictures, model)
        model = _trained(stage, settings, network, pictures, partial(report, stage.name), left)
        left = None if left is None else left - stage.plan.epochs
        if left is not None and left <= 0:
            break
    assert model is not None
    return model


def _network(settings: ChallengeSettings, pictures: Pictures, before: Model | None) -> nn.Module:
    """Random weights, a function of the seed, with a pretrained trunk where one is given; or the weights of the stage before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        network: nn.Module = bind(ARCHITECTURES, settings.arch)(classes=len(pictures.classes))
    if before is not None:
        fill(network, before.network.state_dict(), before.card.name)
    elif settings.trunk is not None:
        take_trunk(network, settings.trunk)
    return network


def _trained(
    stage: Stage,
    settings: ChallengeSettings,
    network: nn.Module,
    pictures: Pictures,
    report: Callable[[dict[str, float]], None],
    stop_after: int | None,
) -> Model:
    """The stage's network after `fit`, as it is read back from its folder."""
    _same_run(stage)
    network.to(settings.device or ("cuda" if torch.cuda.is_available() else "cpu"))
    change = augment(settings.augment)
    batches = Shuffled(pictures, settings.batch, change, stage.seed)
    step = challenge(settings.ingredients(stage.least), stage.seed)
    trained = fit(network, step, batches, stage.plan, folder=stage.folder, report=report, stop_after=stop_after)
    weights = stage.folder / "weights.safetensors"
    write_weights(trained, weights)
    one = change(pictures.images[:1], torch.Generator().manual_seed(0))
    card = Card(
        name=stage.folder.name,
        arch=settings.arch,
        weights=weights.name,
        sha256=file_sum(weights),
        classes=pictures.classes,
        size=one.shape[-1],
        data=settings.data,
        recipe="challenge" if stage.said == settings.said() else f"{stage.name} stage of challenge",
        settings=stage.said,
    )
    write_card(card, stage.folder / "card.toml")
    return load_model(stage.folder)


def _same_run(stage: Stage) -> None:
    """Note what decides the stage, or refuse a folder in which other settings were begun: a checkpoint alone would not tell."""
    path = stage.folder / "settings.txt"
    stage.folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        half = path.with_suffix(".part")
        half.write_text(stage.said + "\n", encoding="utf-8")
        half.replace(path)
    elif (before := path.read_text(encoding="utf-8").strip()) != stage.said:
        words = sorted(set(stage.said.split(" ")) - set(before.split(" ")))
        raise ArtifactError(f"{stage.folder}: begun with other settings than {' '.join(words)}; the same settings, or another folder")
