"""The units of `mspd_table.py`: which nets are attacked how, on which releases, and one attack on up to 25 pictures at a time."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import forearm
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.precision import fast, folded, verdict
from forearm.core.quantize import levels
from forearm.core.threat import Threat
from forearm.core.view import View
from forearm.data import sets
from forearm.errors import BudgetError, ForearmError
from forearm.models.load import Model
from forearm.registry import accepts
from mspd_gain import labels_of, releases

RUNS = Path(__file__).parents[1] / "runs" / "mspd_table"
PART = 25  # pictures of a unit
RELEASES = ("none", "s_fgsm", "s_pgd", "bilevel", "fast_preemption", "mspd")
QUICK = tuple(name for name in RELEASES if name != "bilevel")
LABELS = ("decoupled", "coupled", "given")
SHORT = ("none", "s_fgsm", "mspd")  # what the costly attacks are run on, with decoupled labels
BILEVEL = 25  # pictures: 2,100 gradients each


@dataclass(frozen=True, slots=True)
class Way:
    """An attack at one budget.

    share: of `--examples` (with `strong`, of `--strong`), the pictures that it sees; on the backbone a strong one sees half of these and only MSPD's.
    kinds: the targets that are asked. stage: when it is run. sample: a shortened form for the plan, and how many times as long this one takes.
    """

    spec: str
    threat: str
    share: float = 1.0
    strong: bool = False
    transfer: bool = False
    kinds: tuple[str, ...] = ("backbone", "robust")
    releases: tuple[str, ...] = RELEASES
    labels: tuple[str, ...] = ("decoupled",)
    stage: int = 0
    sample: tuple[str, float] | None = None

    def variants(self, kind: str) -> Iterator[tuple[str, str]]:
        """The releases and labels that it is run on; natural targets get the cheap ones with decoupled labels."""
        left_out = {"natural": ("bilevel",), "backbone": ("s_fgsm",) if self.strong else ()}.get(kind, ())
        for release in (name for name in self.releases if name not in left_out):
            for labels in self.labels if kind != "natural" and release != "none" else ("decoupled",):
                yield release, labels

    def pictures(self, release: str, kind: str, examples: int, strong: int) -> int:
        """How many pictures of a release it sees on a target of this kind: whole units."""
        fewer = 0.5 if kind == "natural" or (self.strong and kind == "backbone") else 1.0
        whole = math.ceil(fewer * self.share * (strong if self.strong else examples) / PART) * PART
        return min(max(whole, PART), BILEVEL if release == "bilevel" else examples)

    def when(self, release: str, labels: str, kind: str) -> int:
        """The stage of a unit: what decides nothing comes later."""
        late = [(labels != "decoupled" or kind == "natural", 2), (release == "bilevel", 3), (self.strong and kind == "backbone", 5)]
        return max(self.stage, *(stage for is_so, stage in late if is_so), 0)


PGD = "pgd(steps=50, stop=True)"
ALL = ("backbone", "robust", "natural")
STRONGEST = "AutoAttack"
WAYS: dict[str, dict[str, Way]] = {
    "cifar10": {
        "FGSM": Way("fgsm", "linf:8/255", kinds=ALL, labels=LABELS),
        "PGD-50": Way(PGD, "linf:8/255", kinds=ALL, labels=LABELS),
        "MI-FGSM, carried over": Way("mi_fgsm", "linf:8/255", transfer=True, kinds=ALL, labels=LABELS),
        "APGD-T": Way("apgd_t(steps=25, targets=4)", "linf:8/255", 0.375, labels=LABELS, stage=2),
        "Square": Way("square(queries=300)", "linf:8/255", 0.125, stage=3),
        "C&W L2": Way("carlini_wagner(searches=3, steps=40, weight=1)", "l2:0.5", 0.125, stage=3),
        "AutoAttack": Way("autoattack", "linf:8/255", strong=True, releases=SHORT, stage=1, sample=("autoattack(steps=5, queries=250)", 20)),
        "AutoAttack L2": Way(
            "autoattack", "l2:0.5", 0.5, True, kinds=("robust",), releases=("none", "mspd"), stage=4,
            sample=("autoattack(steps=5, queries=250)", 20),
        ),
        "PGD-50 at twice the radius": Way(PGD, "linf:16/255", 0.5, releases=SHORT, labels=LABELS, stage=2),
    },
    "photos": {
        "FGSM": Way("fgsm", "linf:4/255", 0.5, kinds=ALL, labels=LABELS, stage=1),
        "PGD-50": Way(PGD, "linf:4/255", 0.5, kinds=ALL, labels=LABELS, stage=1),
        "MI-FGSM, carried over": Way("mi_fgsm", "linf:4/255", 0.5, transfer=True, kinds=ALL, releases=QUICK, stage=3),
        "APGD-T": Way("apgd_t(steps=25, targets=4)", "linf:4/255", 0.25, releases=QUICK, stage=3),
        "AutoAttack": Way(
            "autoattack(steps=50, targets=3, queries=500)", "linf:4/255", 0.5, True, releases=SHORT, stage=3,
            sample=("autoattack(steps=5, targets=3, queries=50)", 10),
        ),
        "PGD-50 at twice the radius": Way(PGD, "linf:8/255", 0.25, releases=SHORT, stage=3),
    },
}  # fmt: skip


# nets: name -> (how it loads, `{}` being the data folder; kind)
NETS: dict[str, dict[str, tuple[str, str]]] = {
    "cifar10": {
        "cifar10_backbone": ("cifar10_backbone", "backbone"),
        "resnet2b": ("resnet2b={}/cifar10_weights/abcrown/resnet2b.pth", "robust"),
        "cnn_a_adv4": ("cnn_a_adv4={}/cifar10_weights/abcrown/cifar_cnn_a_adv4.model", "robust"),
        "cifar10_wide": ("cifar10_wide", "robust"),
        "cifar10_resnext": ("cifar10_resnext", "robust"),
        "cifar10_vit": ("cifar10_vit", "robust"),
        "cifar10_preact": ("cifar10_preact", "robust"),
        "cifar10_labeller": ("cifar10_labeller", "natural"),
        "resnet20": ("resnet20_a={}/cifar10_weights/akamaster/resnet20-12fca82f.th", "natural"),
        "resnet32": ("resnet32_a={}/cifar10_weights/akamaster/resnet32-d509ac18.th", "natural"),
        "resnet44": ("resnet44_a={}/cifar10_weights/akamaster/resnet44-014dd654.th", "natural"),
        "resnet56": ("resnet56_a={}/cifar10_weights/akamaster/resnet56-4bfd9763.th", "natural"),
    },
    "photos": {
        "photo_backbone": ("photo_backbone", "backbone"),
        "photo_target": ("photo_target", "robust"),
        "photo_resnext": ("photo_resnext", "robust"),
        "photo_wide": ("photo_wide", "robust"),
        "photo_labeller": ("photo_labeller", "natural"),
        "mobilenet_v2 ptq": ("mobilenet_v2_ten={}/imagenet/weights/mobilenet_v2_1.0_224_ptq_int8.npz", "natural"),
        "mobilenet_v2 quant": ("mobilenet_v2_ten={}/imagenet/weights/mobilenet_v2_1.0_224_quant_uint8.npz", "natural"),
    },
}


@dataclass(frozen=True, slots=True)
class Net:
    """A net that sees the part's pictures. model judges, twin gives gradients (bf16 where native), near is float32 with batch norm folded."""

    kind: str
    weights: str  # their sha256
    size: int
    model: Classifier
    twin: Classifier
    near: Classifier

    @classmethod
    def of(cls, kind: str, model: Model, side: int) -> Net:
        def seen(part: Classifier) -> Classifier:
            return part if model.size == side else View.of(part, side, side, model.size)

        return cls(kind, model.card.sha256, model.size, seen(model), seen(fast(model)), seen(folded(model)))


@dataclass(frozen=True, slots=True)
class Unit:
    """One attack on one target, on up to `PART` pictures of one release."""

    stage: int
    start: int
    target: str
    way: str
    release: str
    labels: str


Flags = tuple[Tensor, Tensor]  # right without attack, right under attack: one flag a picture


def struck(net: Net, source: Net, way: Way, x: Tensor, y: Tensor, ids: Tensor) -> Flags:
    """One attack on released pictures; what is wrong already is lost and not attacked. BudgetError where it leaves its ball."""
    threat, attacker = Threat.parse(way.threat), forearm.attack(way.spec)
    clean, _ = verdict(net.model, x, y)
    robust, here = clean.clone(), clean.nonzero().squeeze(1)
    if not len(here):
        return clean, robust
    copies: dict[str, Classifier] = {"source": source.twin} if way.transfer else {"twin": net.twin, "folded": net.near}
    given = {name: copy for name, copy in copies.items() if accepts(attacker, name)}
    asked = net.model if given else net.near  # an attack that takes no copy asks float32 alone
    x_adv = attacker(asked, x[here], y[here], threat=threat, noise=Noise(1, ids[here]), **given)
    far = threat.distance(x_adv, x[here])
    if bool((far > threat.eps * (1.0 + 1e-4)).any()) or bool(((x_adv < 0.0) | (x_adv > 1.0)).any()):
        raise BudgetError(f"{way.spec}: a change of {float(far.max()):.6g}; at most {threat.eps:.6g} in {threat.norm.name}, in [0, 1]")
    robust[here] = verdict(net.model, x_adv, y[here])[0]
    return clean, robust


def written(path: Path, content: bytes) -> None:
    """`content` at `path`, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".part")
    partial.write_bytes(content)
    partial.replace(path)


@dataclass(frozen=True)
class Bench:
    """The pictures and nets of one part, and its units."""

    part: str
    x: Tensor
    y: Tensor
    labels: dict[str, Tensor]
    threat: Threat
    nets: dict[str, Net]
    absent: tuple[str, ...]
    sums: dict[str, str]  # of the backbone and the labeller, whom releases depend on

    @classmethod
    def load(cls, part: str, examples: int) -> Bench:
        x, y = pictures_of(part, examples)
        nets: dict[str, Net] = {}
        absent = []
        for name, (spec, kind) in NETS[part].items():
            try:
                nets[name] = Net.of(kind, forearm.load_model(spec.format(sets.root())), x.shape[3])
            except ForearmError as error:
                absent.append(name)
                print(f"left out: {name} ({error})", flush=True)
        backbone, labeller = (nets[f"{'photo' if part == 'photos' else 'cifar10'}_{role}"] for role in ("backbone", "labeller"))
        labels = {"decoupled": labels_of(labeller.model, x), "coupled": labels_of(backbone.model, x), "given": y}
        sums = {"backbone": backbone.weights, "labeller": labeller.weights}
        return cls(part, x, y, labels, Threat.parse("linf:4/255" if part == "photos" else "linf:8/255"), nets, tuple(absent), sums)

    @property
    def backbone(self) -> Net:
        return next(net for net in self.nets.values() if net.kind == "backbone")

    def source(self, target: str) -> tuple[str, Net]:
        """Where attacks are carried over from: the backbone, and to the backbone from the first other robust net."""
        kind = "robust" if self.nets[target].kind == "backbone" else "backbone"
        return next((name, net) for name, net in self.nets.items() if net.kind == kind)

    def span(self, start: int) -> slice:
        return slice(start, min(start + PART, len(self.x)))

    def units(self, strong: int) -> list[Unit]:
        """All units, cheap and decisive ones first; within a stage all targets on the first pictures, then on the next."""
        found = []
        for target, net in self.nets.items():
            for name, way in WAYS[self.part].items():
                for release, labels in way.variants(net.kind) if net.kind in way.kinds else ():
                    stage, many = way.when(release, labels, net.kind), way.pictures(release, net.kind, len(self.x), strong)
                    found += [Unit(stage, start, target, name, release, labels) for start in range(0, many, PART)]
        return sorted(found, key=lambda unit: (unit.stage, unit.start))

    def file(self, what: dict[str, Any], start: int, suffix: str) -> Path:
        """Where something about the pictures from `start` on is kept: its name holds all that decides it."""
        span = self.span(start)
        shown = hashlib.sha256(levels(self.x[span]).numpy().tobytes() + self.y[span].numpy().tobytes()).hexdigest()
        key = json.dumps(what | self.sums | {"part": self.part, "start": start, "pictures": shown}, sort_keys=True)
        return RUNS / self.part / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}{suffix}"

    def anew(self, labels: str, start: int) -> Tensor:
        """Which pictures of a unit these labels make different from the decoupled ones: a flag each, all for the decoupled themselves."""
        here, known = self.labels[labels][self.span(start)], self.labels["decoupled"][self.span(start)]
        return here != known if labels != "decoupled" else torch.ones_like(here, dtype=torch.bool)

    def protect(self, spec: str, x: Tensor, said: Tensor, ids: Tensor) -> Tensor:
        """Pictures under one protector, as 8-bit releases."""
        backbone = self.backbone
        return releases(spec, backbone.twin, x, said, ids, self.threat, backbone.model.size if isinstance(backbone.model, View) else None)

    def release_file(self, name: str, labels: str, start: int) -> Path:
        """Where the releases of one unit are kept."""
        return self.file({"release": name, "labels": labels, "threat": str(self.threat)}, start, ".npy")

    def release(self, name: str, labels: str, start: int) -> Tensor:
        """The pictures of one unit as 8-bit releases, from their file or made now."""
        span, path = self.span(start), self.release_file(name, labels, start)
        if name == "none":
            return self.x[span]
        if not path.exists():
            x, anew = self.x[span], self.anew(labels, start)
            made = x.clone() if labels == "decoupled" else self.release(name, "decoupled", start).clone()
            if anew.any():
                made[anew] = self.protect(name, x[anew], self.labels[labels][span][anew], torch.arange(len(self.x))[span][anew])
            whole = BytesIO()
            np.save(whole, levels(made).numpy())
            written(path, whole.getvalue())
        return torch.from_numpy(np.load(path)).float() / 255.0

    def unit_file(self, unit: Unit) -> Path:
        """Where a unit's verdicts are kept."""
        net, way, (_, source) = self.nets[unit.target], WAYS[self.part][unit.way], self.source(unit.target)
        what = {"target": net.weights, "release": unit.release, "labels": unit.labels, "spec": way.spec, "threat": way.threat}
        return self.file(what | ({"source": source.weights} if way.transfer else {}), unit.start, ".json")

    def flags(self, unit: Unit) -> Flags:
        """The verdicts of one unit, from its file or made now."""
        path = self.unit_file(unit)
        if not path.exists():
            began = time.process_time()
            clean, robust = self.measure(unit)
            kept = {"clean": clean.tolist(), "robust": robust.tolist(), "seconds": time.process_time() - began, "unit": asdict(unit)}
            written(path, json.dumps(kept).encode())
        kept = json.loads(path.read_text())
        return torch.tensor(kept["clean"]), torch.tensor(kept["robust"])

    def measure(self, unit: Unit) -> Flags:
        """The verdicts of one unit; where its labels are the labeller's, they are those of the decoupled unit."""
        span, anew = self.span(unit.start), self.anew(unit.labels, unit.start)
        x, y, ids = self.release(unit.release, unit.labels, unit.start), self.y[span], torch.arange(len(self.x))[span]
        clean, robust = (torch.zeros_like(anew),) * 2 if unit.labels == "decoupled" else self.flags(replace(unit, labels="decoupled"))
        if anew.any():
            net, (_, source) = self.nets[unit.target], self.source(unit.target)
            again = struck(net, source, WAYS[self.part][unit.way], x[anew], y[anew], ids[anew])
            clean, robust = (flags.masked_scatter(anew, new) for flags, new in zip((clean, robust), again, strict=True))
        return clean, robust


def pictures_of(part: str, examples: int) -> tuple[Tensor, Tensor]:
    """The first CIFAR-10 test images, or held-out photos, one of each class in turn."""
    if part == "cifar10":
        pictures = sets.load("cifar10", "test").first(examples)
        return pictures.images.float() / 255, pictures.labels
    pictures = sets.load("imagenette(side=224)", "test")
    by_class = torch.stack([(pictures.labels == k).nonzero().squeeze(1)[: len(pictures) // 10] for k in range(10)], 1)
    order = by_class.flatten()[:examples]
    return pictures.images[order].float() / 255, pictures.labels[order]
