"""Claim: AutoAttack on the CPU is at least 2.5 times as fast as pyautoattack, at the published standard schedule and with the same robust accuracy.

CNN-A of the verification literature, trained against PGD (`cnn_a_adv4`), CIFAR-10's first test pictures, Linf 8/255; both sides get all pictures in one
call, in turn, two threads each, after a small part to warm up. Each batches as it does by default: pyautoattack by 250, ours not at all (what is solved leaves,
so the batch of the costly members is small). Ours works as `forearm audit` does: APGD's gradients on a bf16 copy, FAB and Square on a float32 copy with
batch norm folded (channels_last where the net is wide), every success confirmed on the model itself in float32; and the pictures are dealt out to the two cores
(`attacks.spread`), where the other side shares each operation between them (`--plain`: none of this). Set-up as for `autoattack_parity.py`:

    FOREARM_DATA=... oracle/bin/python benchmarks/autoattack_speed.py [--examples 1000] [--rounds 2] [--model cnn_a_adv4] [--plain]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import time
from functools import partial

import torch

from autoattack_parity import THREAT, judged, load, theirs
from claim import record
from forearm.attacks.autoattack import autoattack
from forearm.attacks.spread import spread
from forearm.core.noise import Noise
from forearm.core.precision import fast, folded
from forearm.data import sets

WARM = 8


def main() -> None:
    parser = argparse.ArgumentParser(description="AutoAttack's time beside pyautoattack's.")
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--model", default="cnn_a_adv4", help="cnn_a_adv4, resnet2b, or an embedded model")
    parser.add_argument("--plain", action="store_true", help="our attack works on the model alone")
    given = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    pictures = sets.load("cifar10", "test").first(given.examples)
    x, y, model = pictures.images.float() / 255, pictures.labels, load(given.model)
    twin, near = (None, None) if given.plain else (fast(model), folded(model))
    own = spread(partial(autoattack, twin=twin, folded=near), 1 if given.plain else torch.get_num_threads())
    sides = {
        "forearm": lambda a, b: own(model, a, b, threat=THREAT, noise=Noise.of(len(a))),
        "pyautoattack": lambda a, b: theirs(model, a, b),
    }
    for attack in sides.values():
        attack(x[:WARM], y[:WARM])
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    standing = dict.fromkeys(sides, 0)
    for turn in range(given.rounds):
        for name, attack in sides.items():
            began = time.perf_counter()
            x_adv = attack(x, y)
            seconds[name].append(time.perf_counter() - began)
            standing[name] = int(judged(model, x_adv, x, y).sum())
        print(turn, {name: round(spent[-1], 1) for name, spent in seconds.items()}, standing, flush=True)
    ratios = [other / own for other, own in zip(seconds["pyautoattack"], seconds["forearm"], strict=True)]
    apart = 100 * abs(standing["forearm"] - standing["pyautoattack"]) / len(x)
    record(
        "autoattack_speed",
        "AutoAttack on the CPU is at least 2.5 times as fast as pyautoattack, with robust accuracy within half a point",
        sum(seconds["pyautoattack"]) / sum(seconds["forearm"]),
        "times as fast (ratio of seconds, sides in turn)",
        n=len(x),
        interval=(min(ratios), max(ratios)),
        at_least=2.5,
        holds=apart <= 0.5,
        details={
            "model": given.model,
            "copies": not given.plain,
            "seconds": seconds,
            "robust_percent": {name: 100 * k / len(x) for name, k in standing.items()},
            "versions": {"pyautoattack": importlib.metadata.version("pyautoattack")},
        },
    )


if __name__ == "__main__":
    main()
