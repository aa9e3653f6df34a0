"""Claim: pictures armed with MSPD and then reverted by an attacker who knows backbone, settings and seed are no easier to attack than bare ones.

CIFAR-10, the first test images, 8/255, the labeller's labels. The attacker runs Preemptive Reversion on the 8-bit release, rounds to 8 bits and attacks
what he got with PGD-20, his ball around that. Beside it: the bare pictures, and the release under an attacker who does not know.

    python benchmarks/mspd_informed.py [--examples 500]
"""

from __future__ import annotations

import argparse
from typing import Any

import torch

import forearm
from claim import record
from forearm.core.noise import Noise
from forearm.core.precision import fast
from forearm.core.quantize import to_8bit
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.defenses.preemptive.mcgs import mcgs
from forearm.defenses.preemptive.reversion import revert
from mspd_gain import BATCH, Target, judge, labels_of, rate, releases

THREAT = Threat.parse("linf:8/255")


def main() -> None:
    parser = argparse.ArgumentParser(description="The attacker who knows everything, against MSPD.")
    parser.add_argument("--examples", type=int, default=500)
    given = parser.parse_args()
    pictures = sets.load("cifar10", "test").first(given.examples)
    x, y, ids = pictures.images.float() / 255, pictures.labels, torch.arange(given.examples)
    foreign = sets.root() / "cifar10_weights" / "abcrown"
    backbone = forearm.load_model("backbone")
    twin = fast(backbone)
    targets = [
        Target.plain("backbone", "backbone", backbone),
        Target.plain("resnet2b", "robust", forearm.load_model(f"resnet2b={foreign / 'resnet2b.pth'}")),
        Target.plain("cnn_a_adv4", "robust", forearm.load_model(f"cnn_a_adv4={foreign / 'cifar_cnn_a_adv4.model'}")),
    ]
    armed = releases("mspd", twin, x, labels_of(forearm.load_model("labeller"), x), ids, THREAT, None)
    parts = zip(armed.split(BATCH), ids.split(BATCH), strict=True)
    back = torch.cat([to_8bit(revert(twin, p, protector=mcgs, threat=THREAT, noise=Noise(0, i))) for p, i in parts])
    rows: dict[str, dict[str, Any]] = {target.name: {"kind": target.kind} for target in targets}
    for name, shown in {"none": x, "mspd": armed, "mspd, reverted": back}.items():
        for target in targets:
            clean, robust = judge(target, shown, y, ids, THREAT, "pgd(steps=20, stop=True)")
            rows[target.name][name] = {"clean": rate(clean), "robust": rate(robust)}
            print(f"{target.name:12} {name:16} robust {rows[target.name][name]['robust']['value']:.3f}", flush=True)
    least = min(100 * (row["mspd, reverted"]["robust"]["value"] - row["none"]["robust"]["value"]) for row in rows.values())
    exact = float(((back - x).abs() < 0.5 / 255).float().mean())
    record(
        "mspd_informed",
        "armed, then reverted by an attacker who knows backbone, settings and seed, pictures are no easier to attack than bare ones",
        least,
        "points of robust accuracy above the bare pictures, the least over targets",
        n=given.examples,
        at_least=0.0,
        details={"pgd20": rows, "pixels_restored_exactly": exact},
    )


if __name__ == "__main__":
    main()
