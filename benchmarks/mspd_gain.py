"""Claim: every release lifts robust accuracy above that of the bare pictures, on the backbone and on robust models that it never saw.

CIFAR-10: the first 1,000 test images at 8/255; PGD-20, and APGD-CE (100 steps) on the first 200. Photos: the 500 held-out photos at 4/255
at their own 224 pixels; the two MobileNetV2 nets (natural, judged among the ten classes) at 1/255 and 2/255 on the first `--natural`.
The attacker's ball lies around the 8-bit release; accuracy is against the true label. Labels of the release: the labeller's (decoupled) and
the true ones (given), side by side. Releases are compared with the bare pictures in pairs, picture by picture. Needs the data sets in
FOREARM_DATA. About an hour on two cores.

    python benchmarks/mspd_gain.py [--examples 1000] [--photos 500] [--natural 500]
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import forearm
from claim import record
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.precision import fast, verdict
from forearm.core.quality import psnr
from forearm.core.quantize import release
from forearm.core.threat import Threat
from forearm.core.view import View
from forearm.data import sets
from forearm.defenses.preemptive.protector import PREEMPTIVE
from forearm.evaluate.statistics import paired_difference, wilson
from forearm.models.load import Model
from forearm.registry import accepts, bind

RELEASES = ("none", "s_fgsm", "s_pgd", "mspd")
BATCH = 50
PARTS = Path(__file__).parents[1] / "runs" / "mspd_gain"  # what each part measured, so that one can be run anew


@dataclass(frozen=True)
class Target:
    """A model that is attacked: the backbone, a robust model or a natural one; judged exactly, differentiated on a fast twin."""

    name: str
    kind: str
    model: Classifier
    twin: Classifier

    @classmethod
    def plain(cls, name: str, kind: str, model: nn.Module) -> Target:
        return cls(name, kind, model, fast(model))

    @classmethod
    def seen(cls, name: str, kind: str, model: Model, side: int) -> Target:
        """A model of another input size, attacked in the photo's own pixels through the resize."""
        return cls(name, kind, View.of(model, side, side, model.size), View.of(fast(model), side, side, model.size))


def releases(name: str, backbone: Classifier, x: Tensor, y: Tensor, ids: Tensor, threat: Threat, grid: tuple[int, int] | None) -> Tensor:
    """All pictures under one defence, as their 8-bit releases."""
    protector = bind(PREEMPTIVE, name)
    if grid is not None and accepts(protector, "grid"):
        protector = partial(protector, grid=grid)
    parts = [
        release(protector(backbone, a, b, threat=threat, noise=Noise(0, c)), a, threat)
        for a, b, c in zip(x.split(BATCH), y.split(BATCH), ids.split(BATCH), strict=True)
    ]
    return torch.cat(parts)


def labels_of(model: Classifier, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([model(part).argmax(1) for part in x.split(BATCH)])


def rate(right: Tensor) -> dict[str, Any]:
    """A share with its 95 % Wilson interval and sample size."""
    low, high = wilson(int(right.sum()), len(right))
    return {"value": float(right.float().mean()), "interval": [low, high], "n": len(right)}


def above(right: Tensor, bare: Tensor) -> dict[str, Any]:
    """The paired difference of two shares over the same pictures, with its 95 % interval."""
    difference, low, high = paired_difference(right.numpy(), bare.numpy())
    return {"value": difference, "interval": [low, high], "n": len(right)}


Verdicts = tuple[Tensor, Tensor]  # right without attack, right under attack: one flag a picture


def judge(target: Target, released: Tensor, y: Tensor, ids: Tensor, threat: Threat, attack: str) -> Verdicts:
    """One target on one set of releases."""
    attacker = forearm.attack(attack)
    clean, robust = [], []
    for x, label, name in zip(released.split(BATCH), y.split(BATCH), ids.split(BATCH), strict=True):
        right, _ = verdict(target.model, x, label)
        x_adv = attacker(target.model, x, label, threat=threat, noise=Noise(1, name), twin=target.twin)
        clean.append(right)
        robust.append(right & verdict(target.model, x_adv, label)[0])
    return torch.cat(clean), torch.cat(robust)


def table(targets: list[Target], made: Releases, y: Tensor, budgets: dict[str, Threat], attack: str, n: int) -> dict[str, Any]:
    """Every target on every release, on the first `n` pictures."""
    rows: dict[str, Any] = {}
    ids = torch.arange(n)
    differs = made.differs[:n]
    for target in targets:
        for budget, threat in budgets.items():
            key = target.name if len(budgets) == 1 else f"{target.name} at {budget}"
            rows[key] = {"kind": target.kind}
            bare = torch.zeros(0)
            for name, released in made.decoupled.items():
                began = time.monotonic()
                clean, robust = judge(target, released[:n], y[:n], ids, threat, attack)
                rows[key][name] = {"clean": rate(clean), "robust": rate(robust)}
                if name == "none":
                    bare = robust
                else:
                    rows[key][name]["above none"] = above(robust, bare)
                    # where the labeller is right the given label makes the same release, with the same verdict
                    clean, robust = clean.clone(), robust.clone()
                    if differs.any():
                        given = made.given[name][: int(differs.sum())]
                        clean[differs], robust[differs] = judge(target, given, y[:n][differs], ids[differs], threat, attack)
                    rows[key][f"{name}, given"] = {"clean": rate(clean), "robust": rate(robust), "above none": above(robust, bare)}
                seconds = time.monotonic() - began
                figures = f"clean {rows[key][name]['clean']['value']:.3f} robust {rows[key][name]['robust']['value']:.3f}"
                print(f"{key:32} {name:10} {attack:24} {figures}  {seconds:.0f} s", flush=True)
    return rows


@dataclass(frozen=True)
class Releases:
    """All pictures under each defence with the labeller's labels, and those on which the labeller is wrong with the true ones."""

    decoupled: dict[str, Tensor]
    given: dict[str, Tensor]
    differs: Tensor  # where the labeller is wrong


def all_releases(
    backbone: Classifier, labeller: Classifier, x: Tensor, y: Tensor, threat: Threat, grid: tuple[int, int] | None = None
) -> tuple[Releases, dict[str, Any]]:
    """Each defence with decoupled and with given labels."""
    said, ids = labels_of(labeller, x), torch.arange(len(x))
    differs = said != y
    decoupled = {name: releases(name, backbone, x, said, ids, threat, grid) for name in RELEASES}
    given = {
        name: releases(name, backbone, x[differs], y[differs], ids[differs], threat, grid) if differs.any() else x[:0] for name in RELEASES
    }
    facts = {
        "labeller_right": rate(~differs),
        "psnr": {name: float(psnr(released, x).mean()) for name, released in decoupled.items() if name != "none"},
    }
    return Releases(decoupled, given, differs), facts


def cifar(examples: int) -> dict[str, Any]:
    pictures = sets.load("cifar10", "test").first(examples)
    x, y = pictures.images.float() / 255, pictures.labels
    threat = Threat.parse("linf:8/255")
    foreign = sets.root() / "cifar10_weights"
    backbone, labeller = forearm.load_model("backbone"), forearm.load_model("labeller")
    targets = [
        Target.plain("backbone", "backbone", backbone),
        Target.plain("resnet2b", "robust", forearm.load_model(f"resnet2b={foreign / 'abcrown/resnet2b.pth'}")),
        Target.plain("cnn_a_adv4", "robust", forearm.load_model(f"cnn_a_adv4={foreign / 'abcrown/cifar_cnn_a_adv4.model'}")),
        Target.plain("labeller", "natural", labeller),
        Target.plain("resnet56", "natural", forearm.load_model(f"resnet56_a={foreign / 'akamaster/resnet56-4bfd9763.th'}")),
    ]
    made, facts = all_releases(fast(backbone), labeller, x, y, threat)
    facts["pgd20"] = table(targets, made, y, {"8/255": threat}, "pgd(steps=20, stop=True)", len(y))
    facts["apgd"] = table(targets[:3], made, y, {"8/255": threat}, "apgd(steps=100)", min(200, len(y)))
    return facts


def photos(count: int, natural: int) -> dict[str, Any]:
    side, threat = 224, Threat.parse("linf:4/255")
    pictures = sets.load(f"imagenette(side={side})", "test")
    by_class = torch.stack([(pictures.labels == k).nonzero().squeeze(1)[: len(pictures) // 10] for k in range(10)], 1)
    order = by_class.flatten()[:count]  # a photo of each class in turn, so that any first part is balanced
    x, y = pictures.images[order].float() / 255, pictures.labels[order]
    backbone, labeller, other = (forearm.load_model(f"photo_{name}") for name in ("backbone", "labeller", "target"))
    view = View.of(fast(backbone), side, side, backbone.size)
    made, facts = all_releases(view, View.of(labeller, side, side, labeller.size), x, y, threat, view.size)
    targets = [Target.seen("photo_backbone", "backbone", backbone, side), Target.seen("photo_target", "robust", other, side)]
    facts["pgd20"] = table(targets, made, y, {"4/255": threat}, "pgd(steps=20, stop=True)", len(y))
    weights = sets.root() / "imagenet" / "weights"
    nets = {"mobilenet_v2 ptq": "mobilenet_v2_1.0_224_ptq_int8.npz", "mobilenet_v2 quant": "mobilenet_v2_1.0_224_quant_uint8.npz"}
    mobile = [Target.plain(name, "natural", forearm.load_model(f"mobilenet_v2_ten={weights / file}")) for name, file in nets.items()]
    small = {"1/255": Threat.parse("linf:1/255"), "2/255": Threat.parse("linf:2/255")}
    facts["pgd20_natural"] = table(mobile, made, y, small, "pgd(steps=20, stop=True)", natural)
    return facts


def gains(rows: dict[str, Any], kinds: tuple[str, ...]) -> dict[str, float]:
    """Robust accuracy of the decoupled MSPD release minus that of the bare pictures, for each target of these kinds."""
    return {name: row["mspd"]["above none"]["value"] for name, row in rows.items() if row["kind"] in kinds}


def apart(rows: dict[str, Any]) -> bool:
    """Whether every release beats the bare pictures on every robust target: the paired 95 % interval lies above 0."""
    robust = [row for row in rows.values() if row["kind"] != "natural"]
    return all(row[name]["above none"]["interval"][0] > 0 for row in robust for name in RELEASES[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description="How much each release gains, on the backbone and on models that it never saw.")
    parser.add_argument("--examples", type=int, default=1000, help="CIFAR-10 test pictures")
    parser.add_argument("--photos", type=int, default=500, help="held-out photos")
    parser.add_argument("--natural", type=int, default=500, help="photos for the two ImageNet nets")
    parser.add_argument("--part", choices=("cifar10", "photos"), help="only this part; the claim is recorded once both are there")
    given = parser.parse_args()
    parts = {"cifar10": lambda: cifar(given.examples), "photos": lambda: photos(given.photos, given.natural)}
    PARTS.mkdir(parents=True, exist_ok=True)
    for name in (given.part,) if given.part else tuple(parts):
        (PARTS / f"{name}.json").write_text(json.dumps(parts[name]()))
    if not all((PARTS / f"{name}.json").is_file() for name in parts):
        return
    details = {name: json.loads((PARTS / f"{name}.json").read_text()) for name in parts}
    tables = [details["cifar10"]["pgd20"], details["photos"]["pgd20"]]
    least = min(min(gains(rows, ("backbone", "robust")).values()) for rows in tables)
    record(
        "mspd_gain",
        "MSPD (decoupled labels) lifts PGD-20 robust accuracy on the backbone and on every unseen robust target; so does every other release",
        100 * least,
        "points of robust accuracy, the least over robust targets",
        n=given.examples + given.photos,
        at_least=5.0,
        holds=all(apart(rows) for rows in tables),
        details=details,
    )


if __name__ == "__main__":
    main()
