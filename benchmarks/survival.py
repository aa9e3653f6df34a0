"""Claim: what arming gains lasts through publishing.

Held-out photos at their own 224 pixels at 4/255 with decoupled labels, by the default release and by MSPD: bare, armed, and armed to survive the `social`
family. Each is judged as it is and after `social`'s nominal chain (real JPEG at 85, at most 1080 pixels, real JPEG at 75) under PGD-20, the attacker's ball
around what was published, against the true label. For each robust target, with robust accuracies R:

    kept = (R(survive, published) - R(bare, published)) / (R(plain, unpublished) - R(bare, unpublished)),    at least .9
    cost = R(plain, unpublished) - R(survive, unpublished),                                                 at most 2 points

Beside it: what the plain release keeps; mean margins under attack, which say more than counts of a few photos; a MobileNetV2 (natural, judged
among the ten classes) at 1/255 on the first `--natural`; and full-size photos at their own size, where the label is the backbone's own and what
is compared is how far its margin rises. Needs the data sets in FOREARM_DATA. About half an hour on two cores for each defence; what each gave is kept in
`runs/survival`, and the claim is about those that are there.

    python benchmarks/survival.py [--photos 500] [--natural 40] [--full 40] [--defenses ensemble mspd]
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import forearm
from claim import record
from forearm.core.gradients import Classifier
from forearm.core.losses import margin
from forearm.core.noise import Noise
from forearm.core.precision import fast, verdict
from forearm.core.publishing import Chain, family
from forearm.core.quality import psnr
from forearm.core.quantize import release
from forearm.core.threat import Threat
from forearm.core.view import View
from forearm.data import sets
from forearm.defenses.preemptive.ensemble import Ensemble
from forearm.defenses.preemptive.large import at_working_size
from forearm.defenses.preemptive.protector import PREEMPTIVE
from forearm.evaluate.defense import usual
from forearm.evaluate.statistics import paired_difference, wilson
from forearm.images.codec import decode
from forearm.jobs.armory import as_tensor
from forearm.registry import accepts, bind

SIDE, THREAT, SMALL = 224, Threat.parse("linf:4/255"), Threat.parse("linf:1/255")
SURVIVE, NATURAL = "social", "mobilenet_v2 at 1/255"
DEFENSES = ("ensemble", "mspd")
PARTS = Path(__file__).parents[1] / "runs" / "survival"
BATCH, RESAMPLES = 20, 2000


Releases = dict[str, Callable[..., Tensor] | None]


def releases(defense: str) -> Releases:
    """What is compared: by name what makes it of a photo, None for the photo itself."""
    protector = bind(PREEMPTIVE, defense)
    return {"bare": None, "plain": protector, "survive": partial(protector, survive=SURVIVE)}


@dataclass(frozen=True)
class Target:
    """A model that is attacked at its own input size; judged exactly, differentiated on a fast twin."""

    name: str
    model: Any
    twin: Classifier
    threat: Threat

    def judge(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Right under attack, and the margin there (above 0 where right): one each a picture."""
        right, margins = [], []
        for first in range(0, len(x), BATCH):
            seen = View.of(self.model, x.shape[2], x.shape[3], self.model.size).see(x[first : first + BATCH]).clamp(0.0, 1.0)
            label, noise = y[first : first + BATCH], Noise.of(len(seen), seed=1, first=first)
            clean, _ = verdict(self.model, seen, label)
            attacked = forearm.attack("pgd(steps=20)")(self.model, seen, label, threat=self.threat, noise=noise, twin=self.twin)
            robust, logits = verdict(self.model, attacked, label)
            right.append(clean & robust)
            margins.append(-margin(logits, label))
        return torch.cat(right), torch.cat(margins)


def held_out(count: int) -> tuple[Tensor, Tensor]:
    """The first held-out photos of each class in turn, and their classes."""
    pictures = sets.load(f"imagenette(side={SIDE})", "test")
    by_class = torch.stack([(pictures.labels == k).nonzero().squeeze(1)[: len(pictures) // 10] for k in range(10)], 1)
    order = by_class.flatten()[:count]
    return pictures.images[order].float() / 255, pictures.labels[order]


def armed(ways: Releases, x: Tensor, labels: Tensor, view: View) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Every release of all photos, each armed alone, and the median seconds a photo; the ways in turn."""
    made: dict[str, list[Tensor]] = {name: [] for name in ways}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for i in range(len(x)):
        one, y = x[i : i + 1], labels[i : i + 1]
        for name, protector in ways.items():
            began = time.perf_counter()
            method = protector if protector is None else gridded(protector, view)
            protected = one if method is None else method(view, one, y, threat=THREAT, noise=Noise.of(1, first=i))
            made[name].append(release(protected, one, THREAT))
            seconds[name].append(time.perf_counter() - began)
    return {name: torch.cat(parts) for name, parts in made.items()}, {name: sorted(s)[len(s) // 2] for name, s in seconds.items()}


def gridded(protector: Callable[..., Tensor], view: View) -> Callable[..., Tensor]:
    """With the grid that the backbone sees, where the protector draws noise on one."""
    return partial(protector, grid=view.size) if accepts(protector, "grid") else protector


Verdicts = dict[tuple[str, str], tuple[Tensor, Tensor]]  # (release, "as it is" or "published") -> right, margin


def share(values: dict[tuple[str, str], Tensor], name: str) -> tuple[float | None, tuple[float, float] | None]:
    """What release `name` keeps of the plain release's unpublished gain, and its 95 % bootstrap interval over photos.

    None where that gain is not apart from 0: a share of nothing says nothing. Photos by the hundred are needed for counts, tens for margins.
    """

    def kept(index: Tensor) -> tuple[Tensor, Tensor]:
        mean = {key: value.double()[index].mean(-1) for key, value in values.items()}
        return mean[name, "published"] - mean["bare", "published"], mean["plain", "as it is"] - mean["bare", "as it is"]

    n, ends = len(values["bare", "published"]), torch.tensor([0.025, 0.975], dtype=torch.float64)
    above, below = kept(torch.randint(n, (RESAMPLES, n), generator=torch.Generator().manual_seed(0)))
    if below.quantile(ends)[0] <= 0:
        return None, None
    left, gained = kept(torch.arange(n))
    low, high = (above / below.clamp_min(1e-9)).quantile(ends).tolist()
    return float(left / gained), (low, high)


def row(verdicts: Verdicts) -> dict[str, Any]:
    """All figures of one target."""
    right, margins = ({key: value[k] for key, value in verdicts.items()} for k in (0, 1))
    told: dict[str, Any] = {}
    for (name, where), found in right.items():
        low, high = wilson(int(found.sum()), len(found))
        told[f"{name}, {where}"] = {
            "robust": float(found.float().mean()),
            "interval": [low, high],
            "mean_margin": float(margins[name, where].mean()),
        }
    for name in ("plain", "survive"):
        kept, interval = share(right, name)
        by_margin, margin_interval = share(margins, name)
        told[f"kept by {name}"] = {"robust": kept, "interval": interval, "margin": by_margin, "margin_interval": margin_interval}
    for what, (first, second) in {"gain": ("plain", "bare"), "cost": ("plain", "survive")}.items():
        points = paired_difference(right[first, "as it is"].numpy(), right[second, "as it is"].numpy())
        told[what] = dict(zip(("points", "low", "high"), (100 * value for value in points), strict=True))
    return told | {"n": len(right["bare", "as it is"])}


def full_size(ways: Releases, count: int, backbone: Any, twin: Classifier, other: Any, chain: Chain) -> dict[str, Any]:
    """Photos at their own size: how far the margin of the backbone's own label rises, on it and on another net, as it is and published."""
    rises: dict[str, list[float]] = {}
    sizes = []
    for path in sorted((sets.root() / "imagenet" / "photos").glob("*.JPEG"))[:count]:
        pixels = decode(path).pixels
        x = as_tensor(pixels, "cpu").expand(-1, 3, -1, -1)
        view = View.of(twin, x.shape[2], x.shape[3], backbone.size)
        y = view(x).argmax(1)
        sizes.append(max(pixels.shape[:2]))
        for name, protector in ways.items():
            if protector is None:
                continue
            method = gridded(protector, view)
            made = release(at_working_size(method, view, x, y, threat=THREAT, noise=Noise.of(1), side=backbone.size), x, THREAT)
            for where, (before, after) in {"as it is": (x, made), "published": (chain.exact(x), chain.exact(made))}.items():
                for model in (backbone, other):
                    seen = View.of(model, before.shape[2], before.shape[3], model.size)
                    with torch.inference_mode():
                        rise = float(margin(seen(before), y) - margin(seen(after), y))
                    rises.setdefault(f"{model.card.name}: {name}, {where}", []).append(rise)
    return {"n": len(sizes), "longest": max(sizes), "mean_rise": {name: sum(values) / len(values) for name, values in rises.items()}}


def measured(defense: str, photos: int, natural: int, full: int) -> dict[str, Any]:
    """One defence on all targets."""
    ways, (chain, *_) = releases(defense), family(SURVIVE)
    x, y = held_out(photos)
    names, said = usual(defense, small=False)
    backbones = [forearm.load_model(name) for name in names.split("+")]
    backbone, labeller, other = backbones[0], forearm.load_model(said), forearm.load_model("photo_target")
    twins = tuple(fast(model) for model in backbones)
    twin: Classifier = Ensemble(twins) if len(twins) > 1 else twins[0]
    with torch.no_grad():
        labels = torch.cat([View.of(labeller, SIDE, SIDE, labeller.size)(part).argmax(1) for part in x.split(BATCH)])
    made, seconds = armed(ways, x, labels, View.of(twin, SIDE, SIDE, backbone.size))
    shown = {
        (name, where): part if where == "as it is" else chain.exact(part)
        for name, part in made.items()
        for where in ("as it is", "published")
    }
    targets = [Target("photo_backbone", backbone, twins[0], THREAT), Target("photo_target", other, fast(other), THREAT)]
    if natural:
        net = forearm.load_model(f"mobilenet_v2_ten={sets.root() / 'imagenet' / 'weights' / 'mobilenet_v2_1.0_224_ptq_int8.npz'}")
        targets.append(Target(NATURAL, net, fast(net), SMALL))
    rows = {}
    for target in targets:
        n = len(y) if target.name != NATURAL else min(natural, len(y))
        rows[target.name] = row({key: target.judge(part[:n], y[:n]) for key, part in shown.items()})
        print(
            defense,
            target.name,
            {key: value for key, value in rows[target.name].items() if key.startswith(("kept", "gain", "cost"))},
            flush=True,
        )
    return {
        "targets": rows,
        "photos": len(y),
        "chain": str(chain),
        "labeller_right": float((labels == y).float().mean()),
        "psnr": {name: float(psnr(part, x).mean()) for name, part in made.items() if name != "bare"},
        "median_seconds": seconds,
        "full_size": full_size(ways, full, backbone, twin, other, chain) if full else None,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="What arming gains, after publishing.")
    parser.add_argument("--photos", type=int, default=500, help="held-out photos")
    parser.add_argument("--natural", type=int, default=40, help="photos for the ImageNet net")
    parser.add_argument("--full", type=int, default=40, help="full-size photos")
    parser.add_argument("--defenses", nargs="+", default=[*DEFENSES], choices=DEFENSES, help="measure these anew")
    given = parser.parse_args()
    PARTS.mkdir(parents=True, exist_ok=True)
    for defense in given.defenses:
        (PARTS / f"{defense}.json").write_text(json.dumps(measured(defense, given.photos, given.natural, given.full)))
    details = {name: json.loads(path.read_text()) for name in DEFENSES if (path := PARTS / f"{name}.json").is_file()}
    told = [figures for part in details.values() for name, figures in part["targets"].items() if name != NATURAL]
    least = min(told, key=lambda figures: figures["kept by survive"]["robust"] or 0.0)
    record(
        "survival",
        "armed to survive `social`, photos keep at least .9 of the robust accuracy that arming gains, at a cost of at most 2 points unpublished",
        least["kept by survive"]["robust"] or 0.0,
        f"of the plain release's unpublished gain, the least over {' and '.join(details)} and two robust targets",
        n=min(part["photos"] for part in details.values()),
        interval=least["kept by survive"]["interval"],
        at_least=0.9,
        holds=all(figures["cost"]["points"] <= 2.0 for figures in told),
        details=details,
    )


if __name__ == "__main__":
    main()
