"""What the benchmarks of MID share: nets and baselines on one ground, attacks in three columns, a clock. No claim by itself.

Three columns: `gray`, made on the target; `transfer`, made on the teacher; `white`, made on the net that is judged. Every net, every file of attacked
pictures and every row of verdicts is on disk when it is done, so a run that is killed or out of time goes on where it was.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from forearm.core.noise import Noise
from forearm.core.precision import fast, folded, verdict
from forearm.core.quality import psnr, ssim
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.data.batches import Batch, Pictures, Shuffled
from forearm.defenses.training.adversarial import adversarial
from forearm.defenses.training.distillation import distillation, softened
from forearm.defenses.training.loop import Plan, Step, fit
from forearm.defenses.training.trades import trades
from forearm.evaluate.statistics import wilson
from forearm.jobs.train import write_weights
from forearm.jobs.train_mid import MidSettings, plain, train_mid
from forearm.jobs.train_pool import Member, member
from forearm.models.architectures import ARCHITECTURES
from forearm.models.autoencoder import Autoencoder
from forearm.models.card import Card, write_card
from forearm.models.load import Model, load_model
from forearm.models.weights import file_sum
from forearm.registry import accepts, bind

ROOT = Path(__file__).parents[1]
PICTURES = ROOT / "docs" / "pictures"
COLUMNS = ("gray", "transfer", "white")
PART = 50  # pictures attacked together
SOFT_RATE = 0.01  # of distillation, whose logits are 20 times as large: at the rate of the others it diverges
Flags = list[bool]
Said = dict[str, dict[str, dict[str, Flags]]]  # net -> column -> attack -> which pictures it gets right


class Over(Exception):
    """The time that was given is used up; what is done is on disk."""


@dataclass(frozen=True)
class Clock:
    """Raises `Over` between units of work once `until` (of time.monotonic) has passed."""

    until: float = float("inf")

    @classmethod
    def of(cls, minutes: float | None) -> Clock:
        return cls() if minutes is None else cls(time.monotonic() + 60 * minutes)

    def check(self) -> None:
        if time.monotonic() > self.until:
            raise Over

    def told(self, stage: str, row: dict[str, float]) -> None:
        """One line an epoch, after which the run may end."""
        print(stage, {name: round(value, 4) for name, value in row.items()}, flush=True)
        self.check()


# --- nets


@dataclass
class Spent:
    """CPU seconds of a piece of work over all the calls that it took, kept in a file; what a kill threw away is not counted."""

    path: Path
    last: float = field(default_factory=time.process_time)

    def note(self) -> None:
        now = time.process_time()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        half = self.path.with_suffix(".part")
        half.write_text(json.dumps(self.seconds + now - self.last))
        half.replace(self.path)
        self.last = now

    @property
    def seconds(self) -> float:
        return float(json.loads(self.path.read_text())) if self.path.is_file() else 0.0


@dataclass(frozen=True)
class Ground:
    """What all nets of a benchmark have in common: recipe, folder, clock. The base (target, teacher, pool) belongs to all of them."""

    recipe: Path
    runs: Path
    clock: Clock

    def settings(self, changed: dict[str, Any] | None = None, seed: int = 0) -> MidSettings:
        return MidSettings.read(self.recipe, {"base": self.runs / "base"} | (changed or {}) | {"seed": seed})

    def student(
        self, name: str, changed: dict[str, Any], seed: int = 0, told: Callable[[str, dict[str, float]], None] | None = None
    ) -> Model:
        """A net of MID: the recipe with some settings changed. `spent.json` beside it: the CPU seconds that it took, with what it had to make first."""
        out = self.runs / f"{name}_{seed}"
        spent = Spent(out / "spent.json")
        report = told or (lambda stage, row: self.clock.told(f"{out.name} {stage}", row))

        def said(stage: str, row: dict[str, float]) -> None:
            spent.note()
            report(stage, row)

        train_mid(self.settings(changed, seed), out, said, lambda *_: spent.note())
        return load_model(out)

    def classifier(
        self,
        name: str,
        step: Step,
        seed: int = 0,
        epochs: int | None = None,
        told: Callable[[str, dict[str, float]], None] | None = None,
        start: Model | None = None,
        rate: float | None = None,
    ) -> Model:
        """The target's architecture, trained by another recipe on the same pictures in the same order, as many epochs as the student or `epochs`.

        `start`: a net of that architecture to begin from, instead of random weights. `rate`: another than the student's.
        """
        out, settings = self.runs / f"{name}_{seed}", self.settings()
        pictures = sets.load(settings.data, "train", first=settings.examples)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            net = bind(ARCHITECTURES, settings.target)(classes=len(pictures.classes))
        if start is not None:
            net.load_state_dict(start.network.state_dict())
        plan = Plan(epochs or settings.epochs, rate or settings.rate, average=settings.average, bf16=False)
        report = told or (lambda stage, row: self.clock.told(f"{out.name} {stage}", row))
        net = fit(net, step, Shuffled(pictures, settings.batch, plain, seed), plan, folder=out, report=lambda row: report(name, row))
        card = written(out, net, settings, name, pictures)
        write_card(card, out / "card.toml")
        return load_model(out)


def written(out: Path, net: torch.nn.Module, settings: MidSettings, recipe: str, pictures: Pictures) -> Card:
    """The net's weights as a file, and the card for them."""
    write_weights(net, out / "weights.safetensors")
    return Card(
        name=out.name,
        arch=settings.target,
        weights="weights.safetensors",
        sha256=file_sum(out / "weights.safetensors"),
        classes=pictures.classes,
        size=pictures.images.shape[-1],
        data=settings.data,
        recipe=recipe,
        threat=settings.threat,
    )


def baseline(ground: Ground, name: str, seed: int = 0) -> Model:
    """Adversarial training, TRADES or defensive distillation of the target's architecture; `erm` is a student (see `NETS` of mid_mnist)."""
    threat = Threat.parse(ground.settings().threat)
    if name == "pgd_at":
        start = load_model(
            ground.runs / "base" / "target"
        )  # from random weights, and on attacked pictures alone, it stays at the constant answer
        return ground.classifier(name, adversarial(threat, steps=10, clean=0.5), seed, start=start)
    if name == "trades":
        return ground.classifier(name, trades(threat, steps=10), seed)
    assert name == "distilled"
    first = ground.classifier("softened", softened(), seed, rate=SOFT_RATE)
    return ground.classifier(name, distillation(first), seed, rate=SOFT_RATE)


# --- attacks


def slug(spec: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in spec)


def attack(source: Model, batch: Batch, one: Member) -> Tensor:
    """One part attacked on `source`, from the true label or to the class 0; in the ball, in float32."""
    copies = {name: make(source) for name, make in (("twin", fast), ("folded", folded)) if accepts(one.attack, name)}
    y = torch.zeros_like(batch.y) if one.threat.targeted else batch.y
    x_adv: Tensor = one.attack(source, batch.x, y, threat=one.threat, noise=Noise(0, batch.ids), **copies)
    far = float(one.threat.distance(x_adv, batch.x).max())
    assert far <= one.threat.eps * (1 + 1e-4) + 1e-6, f"{one.spec}: {far} away"
    return x_adv


def crafted(source: Model, one: Member, pictures: Pictures, n: int, path: Path) -> Tensor:
    """The first `n` pictures attacked on `source`; kept in `path` under the name of all that decides them."""
    kept = path / f"{slug(one.spec)}-{slug(str(one.threat))}-{n}-{source.card.sha256[:12]}.npy"
    if not kept.is_file():
        made = torch.cat([attack(source, batch, one) for batch in pictures.first(n).batches(PART)]).numpy()
        path.mkdir(parents=True, exist_ok=True)
        half = kept.with_suffix(".part")
        with half.open("wb") as file:
            np.save(file, made)
        half.replace(kept)
    return torch.from_numpy(np.load(kept))


def rights(victim: Model, x: Tensor, y: Tensor) -> Flags:
    """Which pictures the net gets right, in float32."""
    return [bool(flag) for a, b in zip(x.split(PART), y.split(PART), strict=True) for flag in verdict(victim, a, b)[0]]


def against_itself(victim: Model, one: Member, pictures: Pictures, n: int, path: Path) -> tuple[Flags, int]:
    """Which of the first `n` pictures stand, attacked on the victim, and how many the attack left as they were; kept in `path`."""
    kept = path / f"{slug(one.spec)}-{slug(str(one.threat))}-{n}-{victim.card.sha256[:12]}.json"
    if not kept.is_file():
        flags, same = list[bool](), 0
        for batch in pictures.first(n).batches(PART):
            x_adv = attack(victim, batch, one)
            flags += rights(victim, x_adv, batch.y)
            same += int((x_adv == batch.x).flatten(1).all(1).sum())
        path.mkdir(parents=True, exist_ok=True)
        half = kept.with_suffix(".part")
        half.write_text(json.dumps({"right": flags, "unchanged": same}))
        half.replace(kept)
    held = json.loads(kept.read_text())
    return held["right"], held["unchanged"]


@dataclass(frozen=True)
class Asked:
    """One attack of a benchmark: by name, its threat, and on how many pictures. Cheap ones come first."""

    spec: str
    threat: str
    n: int

    @property
    def member(self) -> Member:
        return member(self.spec, Threat.parse(self.threat))


def judged(
    nets: dict[str, Model],
    sources: dict[str, Model],
    asked: Iterable[Asked],
    pictures: Pictures,
    runs: Path,
    clock: Clock,
    columns: Iterable[str] = COLUMNS,
    white: int | None = None,
) -> tuple[Said, dict[str, dict[str, float]], list[str]]:
    """Who stands what: flags by net, column and attack; the shares that a white-box attack left unchanged; what there was no time for.

    sources: the models of the columns `gray` and `transfer`; white: at most so many pictures in the white box.
    The column `white` holds no picture right that was wrong before.
    """
    said: Said = {name: {column: {} for column in ("clean", *columns)} for name in nets}
    unchanged: dict[str, dict[str, float]] = {name: {} for name in nets}
    missing: list[str] = []
    asked = list(asked)
    most = max(one.n for one in asked)
    x, y = next(pictures.first(most).batches(most)).x, pictures.labels[:most]
    for name, net in nets.items():
        said[name]["clean"]["clean"] = rights(net, x, y)
    for column in (column for column in columns if column != "white"):
        for one in asked:
            try:
                clock.check()
                x_adv = crafted(sources[column], one.member, pictures, one.n, runs / "attacks" / column)
            except Over:
                missing.append(f"{column}: {one.spec}")
                continue
            for name, net in nets.items():
                said[name][column][one.spec] = rights(net, x_adv, y[: one.n])
            print(column, one.spec, {name: round(sum(v[column][one.spec]) / one.n, 3) for name, v in said.items()}, flush=True)
    for one in (replace(one, n=min(one.n, white or one.n)) for one in asked if "white" in columns):
        for name, net in nets.items():
            try:
                clock.check()
                flags, same = against_itself(net, one.member, pictures, one.n, runs / "attacks" / "white")
            except Over:
                missing.append(f"white: {one.spec} on {name}")
                continue
            clean = said[name]["clean"]["clean"]
            said[name]["white"][one.spec] = [a and b for a, b in zip(flags, clean, strict=False)]
            unchanged[name][one.spec] = same / one.n
            print("white", one.spec, name, round(sum(said[name]["white"][one.spec]) / one.n, 3), flush=True)
    return said, unchanged, missing


# --- what it adds up to


def share(flags: list[Flags]) -> dict[str, Any]:
    """The mean share over seeds of the same pictures, with the Wilson interval of so many pictures, and each seed's."""
    seeds, n = [sum(one) / len(one) for one in flags], len(flags[0])
    value = sum(seeds) / len(seeds)
    return {"value": value, "interval": wilson(round(value * n), n), "n": n, "seeds": seeds}


def over_seeds(said: Said, names: Iterable[str]) -> dict[str, Any]:
    """`said` with the seeds of each net together: name -> column -> attack -> share. What some seed lacks is left out."""
    table: dict[str, Any] = {}
    for name in names:
        held = [said[key] for key in said if key.rpartition("_")[0] == name or key == name]
        if not held:
            continue
        table[name] = {
            column: {
                spec: share([one[column][spec] for one in held]) for spec in held[0][column] if all(spec in one[column] for one in held)
            }
            for column in held[0]
        }
    return table


def mean_flags(said: Said, name: str, column: str, specs: Iterable[str]) -> np.ndarray[Any, Any] | None:
    """For each picture, under how many of these attacks the net stands, as a share; over the seeds, and the pictures that all attacks saw."""
    held = [said[key][column] for key in said if key.rpartition("_")[0] == name or key == name]
    specs = list(specs)
    if not held or not specs or any(spec not in one for one in held for spec in specs):
        return None
    n = min(len(one[spec]) for one in held for spec in specs)
    return np.mean([np.asarray(one[spec][:n], float) for one in held for spec in specs], axis=0)


def paired(first: np.ndarray[Any, Any], second: np.ndarray[Any, Any]) -> dict[str, Any]:
    """The mean difference picture by picture, with its normal 95 % interval."""
    n = min(len(first), len(second))
    apart = first[:n] - second[:n]
    half = 1.96 * float(apart.std(ddof=1)) / n**0.5
    return {"value": float(apart.mean()), "interval": (float(apart.mean()) - half, float(apart.mean()) + half), "n": n}


def regenerated(net: Model, pictures: Pictures, x_adv: Tensor) -> dict[str, float]:
    """PSNR (dB) and SSIM of what the decoder makes, from clean and from attacked pictures, against the clean ones."""
    network = net.network
    assert isinstance(network, Autoencoder)
    x = pictures.images[: len(x_adv)].float() / 255.0
    found = {}
    for kind, given in (("clean", x), ("attacked", x_adv)):
        with torch.no_grad():
            made = torch.cat([network.regenerate(part) for part in given.split(PART)])
        found |= {f"psnr {kind}": round(float(psnr(made, x).mean()), 3), f"ssim {kind}": round(float(ssim(made, x).mean()), 4)}
    return found


def sheet(folders: list[Path], to: Path) -> None:
    """The samples of the first run, and under them the last row (made again from attacked pictures by the student) of each further one, enlarged."""
    images = [np.asarray(Image.open(folder / "samples.png").convert("RGB")) for folder in folders if (folder / "samples.png").is_file()]
    if images:
        row = images[0].shape[0] // 5
        whole = np.concatenate([images[0], *(image[-row:] for image in images[1:])])
        to.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(whole).resize((whole.shape[1] * 2, whole.shape[0] * 2), Image.Resampling.NEAREST).save(to, optimize=True)
