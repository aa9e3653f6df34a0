"""What `forearm train mid` does: a target and its attacked pictures, a teacher, and the student that MID trains, each usable by name at once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field
from torch import Generator, Tensor, nn

from forearm.core.quantize import levels
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.data.batches import Batch, Pictures, Shuffled
from forearm.defenses.training.adversarial import standard
from forearm.defenses.training.autoencoder import Coder, autoencoder
from forearm.defenses.training.loop import Plan, Step, fit
from forearm.defenses.training.mid import Members, Meta, Weights, against_student, mid, refreshed
from forearm.defenses.training.processes import Processes, processes
from forearm.errors import ArtifactError, SpecError
from forearm.jobs.recipe import checked, recipe_values
from forearm.jobs.train import write_weights
from forearm.jobs.train_pool import Member, Progress, attacked, make_pool, member
from forearm.models.architectures import ARCHITECTURES
from forearm.models.autoencoder import Autoencoder, student_of
from forearm.models.card import Card, write_card
from forearm.models.load import Model, load_model
from forearm.models.weights import file_sum
from forearm.registry import bind

Told = Callable[[str, dict[str, float]], None]  # a stage, and its epoch's figures
SHOWN = 8  # the first test pictures, chosen before anything is known of them
YOUNGER = ("agreement",)  # than runs that must go on: said only where they are set
PUBLISHED_POOL = (
    "pgd(steps=40, step=1/30)",
    "targeted:pgd(steps=40, step=1/30)",
    "mi_fgsm(steps=40, step=1/30)",
    "targeted:mi_fgsm(steps=40, step=1/30)",
)
PRESETS: dict[str, dict[str, Any]] = {
    "published": {},  # what the paper intends
    "released": {"order": "detached", "scale": "element", "total": "sum", "cyclic": 0.0},  # what the authors' script really does
    "regenerate": {"pixels": 20.0},  # the student's pictures count too
    "adaptive": {"pool": "adaptive", "pixels": 20.0, "members": ("pgd(steps=7)", "targeted:pgd(steps=7)", "mi_fgsm(steps=7)")},
}


class MidSettings(BaseModel):
    """One run of MID. A recipe file in TOML has these names; the command line overrides it, and both override the preset."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    preset: str = Field("published", description=", ".join(PRESETS))
    data: str = "mnist"
    folder: Path | None = None
    examples: int | None = Field(None, ge=1, description="only the first so many training pictures")
    arch: str = Field("lenet_autoencoder", description="of teacher and student: an encoder, a decoder, a head")
    target: str = Field("lenet", description="architecture of the classifier that a fixed pool attacks")
    base: Path | None = Field(None, description="folder of another run whose target, teacher and pool are used (default: made in this one)")
    base_seed: int = Field(0, description="of the target, the teacher and the pool")
    threat: str = "linf:0.3"
    members: tuple[str, ...] = Field(PUBLISHED_POOL, min_length=1, description="attacks by name; one is held out in each step")
    pool: Literal["fixed", "adaptive", "refreshed"] = Field(
        "fixed",
        description="fixed: made on the target once; adaptive: on the student in each step; refreshed: on the student as each epoch began",
    )
    aim: int = Field(0, ge=0, description="the class that targeted members go to")
    order: str = Field("second", description="of the meta-gradient: second, first, none, detached")
    alpha: float = Field(
        1e-3, gt=0.0, description="the inner step; the authors' script has 1e-4, where the meta term is nearly plain training"
    )
    scale: str = Field("position", description="of the divergences: position (summed over channels) or element")
    total: str = Field("mean", description="over the known members: mean or sum")
    label: float = Field(1.0, ge=0.0)
    adversarial: float = Field(1.5, ge=0.0)
    cyclic: float = Field(0.8, ge=0.0)
    pixels: float = Field(0.0, ge=0.0)
    agreement: float = Field(
        0.0, ge=0.0, description="beyond the paper: KL of the student's own clean answers to its attacked ones, as in TRADES"
    )
    start: Literal["random", "teacher"] = "random"
    batch: int = Field(256, ge=2)
    epochs: int = Field(3, ge=1)
    rate: float = Field(0.05, gt=0.0)
    average: float = Field(0.98, ge=0.0, lt=1.0)
    target_epochs: int = Field(3, ge=1)
    target_rate: float = Field(0.05, gt=0.0)
    teacher_epochs: int = Field(5, ge=1)
    teacher_rate: float = Field(0.05, gt=0.0)
    teacher_pixels: float = Field(5.0, gt=0.0, description="weight of the teacher's MSE; published 1, under Adam")
    seed: int = 0
    device: str | None = Field(None, description="cpu or cuda; a GPU if there is one")

    @classmethod
    def read(cls, recipe: Path | None, overrides: dict[str, Any]) -> MidSettings:
        """The preset, then a recipe file, then what the command line says. SpecError in one line for anything unknown."""
        values = recipe_values(recipe, overrides, "mnist_mid.toml")
        preset = values.get("preset", "published")
        if not isinstance(preset, str) or preset not in PRESETS:
            raise SpecError(f"mid: got preset={preset!r}; one of {', '.join(PRESETS)}, for example 'published'")
        settings = checked(cls, PRESETS[preset] | values, recipe or "mid")
        settings.meta()  # its names are checked before anything is trained
        settings.attacks()
        return settings

    def meta(self) -> Meta:
        """The objective. Of the meta-test weights only `pixels` follows the settings; LC, AC and CC count 1 there, and 0 where they are switched off."""
        train = Weights(self.label, self.adversarial, self.cyclic, self.pixels, self.agreement)
        test = Weights(float(self.label > 0), float(self.adversarial > 0), float(self.cyclic > 0), self.pixels)
        return Meta(self.order, self.alpha, self.scale, self.total, train, test, self.seed)

    def attacks(self) -> tuple[Member, ...]:
        """The members, bound and checked against the threat."""
        return tuple(member(spec, Threat.parse(self.threat)) for spec in self.members)


@dataclass(frozen=True, slots=True)
class Stage:
    """One network of a run. name: target, teacher or student; arch: in call syntax; said: the settings that decide it, as text."""

    name: str
    arch: str
    folder: Path
    seed: int
    plan: Plan
    said: str


def plain(images: Tensor, generator: Generator) -> Tensor:
    """Pictures as they are: a pool's variants belong to these pixels."""
    return images.float() / 255.0


def stages(settings: MidSettings, out: Path) -> tuple[Stage, Stage, Stage]:
    """Target, teacher and student: each is decided by its own settings alone, so runs that differ in the student share the others."""
    shared = ("data", "examples", "batch", "average", "base_seed")
    own: dict[str, tuple[str, ...]] = {"target": ("target", "target_epochs", "target_rate")}
    own["teacher"] = ("arch", "teacher_epochs", "teacher_rate", "teacher_pixels")
    ground = settings.base or out

    def stage(name: str, arch: str, folder: Path, seed: int, epochs: int, rate: float) -> Stage:
        named = {*shared, *own[name]} if name in own else set(MidSettings.model_fields) - {"folder", "device", "base"}
        values = settings.model_dump(mode="json", include=named)
        said = " ".join(f"{key}={value!r}" for key, value in sorted(values.items()) if key not in YOUNGER or value)
        return Stage(name, arch, folder, seed, Plan(epochs, rate, average=settings.average, bf16=False), said)

    return (
        stage("target", settings.target, ground / "target", settings.base_seed, settings.target_epochs, settings.target_rate),
        stage("teacher", settings.arch, ground / "teacher", settings.base_seed, settings.teacher_epochs, settings.teacher_rate),
        stage("student", settings.arch, out, settings.seed, settings.epochs, settings.rate),
    )


def train_mid(
    settings: MidSettings,
    out: Path,
    report: Told = lambda _stage, _row: None,
    progress: Progress = lambda _name, _done, _all: None,
    stop_after: int | None = None,
) -> nn.Module:
    """Train a target, make its pool, train a teacher and then the student; what an earlier call finished is taken as it is.

    `out` afterwards holds the student (checkpoint.pt, log.csv, weights.safetensors, card.toml), samples.png, and unless `base` names another
    folder `target/`, `teacher/` (models by name too) and `pool/`. Broken off anywhere, the same call goes on to the same weights.
    `report` is told each stage's epochs, `progress` the pool's pictures. `stop_after` ends the student's run after that epoch and leaves it resumable.
    Under `torchrun` each process takes its part of every batch, to the weights of one process up to rounding (and to batch norm, which normalises by
    the part); the first one writes.
    """
    device = settings.device or ("cuda" if torch.cuda.is_available() else "cpu")
    with processes(device) as among:
        return _train(settings, out, report, progress, stop_after, device, among)


def _train(
    settings: MidSettings, out: Path, report: Told, progress: Progress, stop_after: int | None, device: str, among: Processes
) -> nn.Module:
    pictures = sets.load(settings.data, "train", settings.folder, first=settings.examples)
    first, second, third = stages(settings, out)
    trained = partial(_trained, pictures=pictures, settings=settings, report=report, among=among)
    target = trained(first, _of_parts(standard(), among), _network(first, pictures).to(device))
    teacher = trained(second, _of_parts(autoencoder(settings.teacher_pixels), among), _network(second, pictures).to(device))
    members = _members(settings, target.to(device), pictures, first.folder.parent / "pool", progress, among)
    taught = cast(Autoencoder, teacher.to(device).network)
    student = student_of(taught, cast(Autoencoder, _network(third, pictures).to(device)), copy_encoder=settings.start == "teacher")
    model = trained(third, mid(cast(Coder, taught), members, settings.meta(), among), student, stop_after=stop_after)
    if among.first and (stop_after is None or stop_after >= settings.epochs):
        shown = sets.load(settings.data, "test", settings.folder, first=SHOWN)
        write_samples(out / "samples.png", shown, target, settings.attacks()[0], taught, cast(Autoencoder, model.network), settings.aim)
    return model


def _of_parts(step: Step, among: Processes) -> Step:
    """`step` on this process's part of each batch."""
    return lambda model, batch: step(model, among.part(batch))


def _trained(
    stage: Stage,
    step: Step,
    network: nn.Module,
    *,
    pictures: Pictures,
    settings: MidSettings,
    report: Told,
    among: Processes,
    stop_after: int | None = None,
) -> Model:
    """The stage's network after `fit`, as it is read back from its folder: fp16 weights, with their card."""
    _same_run(stage, among)
    batches = Shuffled(pictures, settings.batch, plain, stage.seed)
    told = partial(report, stage.name)
    trained = fit(network, step, batches, stage.plan, folder=stage.folder, report=told, stop_after=stop_after, among=among)
    if among.first:
        _write(stage, trained, pictures, settings)
    among.wait()
    return load_model(stage.folder)


def _write(stage: Stage, trained: nn.Module, pictures: Pictures, settings: MidSettings) -> None:
    """The stage's weights and their card."""
    weights = stage.folder / "weights.safetensors"
    write_weights(trained, weights)
    card = Card(
        name=stage.folder.name,
        arch=stage.arch,
        weights=weights.name,
        sha256=file_sum(weights),
        classes=pictures.classes,
        size=pictures.images.shape[-1],
        data=settings.data,
        recipe="mid" if stage.name == "student" else f"{stage.name} of mid",
        settings=stage.said,
        threat=settings.threat if stage.name == "student" else None,
    )
    write_card(card, stage.folder / "card.toml")


def _network(stage: Stage, pictures: Pictures) -> nn.Module:
    """The stage's architecture with random weights: a function of its seed; no global generator is left changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stage.seed * 3 + ("target", "teacher", "student").index(stage.name))
        network: nn.Module = bind(ARCHITECTURES, stage.arch)(classes=len(pictures.classes))
    if stage.name != "target" and not isinstance(network, Autoencoder):
        raise SpecError(f"mid: got arch={stage.arch!r}; an autoencoder, for example 'lenet_autoencoder' or 'resnet_autoencoder(width=16)'")
    return network


def _same_run(stage: Stage, among: Processes) -> None:
    """Note what decides the stage, or refuse a folder in which other settings were begun: a checkpoint alone would not tell."""
    path = stage.folder / "settings.txt"
    stage.folder.mkdir(parents=True, exist_ok=True)
    if not path.is_file():
        if not among.first:
            return
        half = path.with_suffix(".part")
        half.write_text(stage.said + "\n", encoding="utf-8")
        half.replace(path)
    elif (before := path.read_text(encoding="utf-8").strip()) != stage.said:
        words = sorted(set(stage.said.split(" ")) - set(before.split(" ")))
        raise ArtifactError(f"{stage.folder}: begun with other settings than {' '.join(words)}; the same settings, or another folder")


def _members(settings: MidSettings, target: Model, pictures: Pictures, folder: Path, progress: Progress, among: Processes) -> Members:
    """Where the student's pictures come from: the files of a fixed pool, or attacks on itself."""
    attacks = settings.attacks()
    if settings.pool != "fixed":
        own = against_student([(one.attack, one.threat) for one in attacks], aim=settings.aim, seed=settings.seed)
        return own if settings.pool == "adaptive" else refreshed(own, len(pictures) // settings.batch)
    make = partial(make_pool, folder, target, pictures, attacks, aim=settings.aim, seed=settings.base_seed)
    if among.first:
        make(report=progress)
    among.wait()
    pool = make()

    def members(model: nn.Module, batch: Batch, key: int) -> Tensor:
        return pool.of(batch.ids).to(batch.x.device)

    return members


def write_samples(
    path: Path, shown: Pictures, target: Model, attack: Member, teacher: Autoencoder, student: Autoencoder, aim: int = 0
) -> None:
    """A PNG of five rows: test pictures; attacked on the target; made again by the teacher from clean and attacked ones, by the student from attacked ones."""
    batch = next(shown.batches(max(len(shown), 1))).to(next(target.parameters()).device)
    x_adv = attacked(target, batch, attack, aim, seed=0)
    with torch.no_grad():
        rows = (batch.x, x_adv, teacher.regenerate(batch.x), teacher.regenerate(x_adv), student.regenerate(x_adv))
    framed = [torch.nn.functional.pad(row.float().cpu(), (1, 1, 1, 1), value=1.0) for row in rows]
    sheet = torch.cat([torch.cat(list(row), 2) for row in framed], 1)
    pixels = levels(sheet).permute(1, 2, 0).repeat(1, 1, 3 // sheet.shape[0]).numpy()
    half = path.with_suffix(".part")
    Image.fromarray(np.ascontiguousarray(pixels)).save(half, format="PNG")
    half.replace(path)
