"""Claim: PGD-20 on the CPU is at least 1.5 times as fast as torchattacks' and twice as fast as foolbox's, and as many pictures stand.

The embedded CIFAR-10 backbone (PreActResNet, width 32), the first test pictures, 8/255, steps of an eighth of eps from a random start, batches of 50. Each
library as it is ordinarily used: theirs on the float32 model; ours with gradients on `core.precision.fast(model)`, successes confirmed on the model itself
and leaving the batch (`stop=True`). The weights are frozen for all three, which spares foolbox parameter gradients. Sides run in turn, batch by batch, after a
round to warm up; whether a picture stands is judged in float32 for all.

The other libraries are no dependency of this project; the script needs them beside it:

    python -m venv oracle && oracle/bin/pip install -c constraints.txt -e '.[dev]' foolbox==3.3.4
    oracle/bin/pip install --no-deps torchattacks==3.5.1
    FOREARM_DATA=... oracle/bin/python benchmarks/pgd_speed.py [--examples 500] [--rounds 3]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import statistics
import time
from collections.abc import Callable

import foolbox
import torchattacks
from torch import Tensor, nn

import forearm
from claim import record
from forearm.attacks.pgd import pgd
from forearm.core.noise import Noise
from forearm.core.precision import fast, verdict
from forearm.core.threat import Threat
from forearm.data import sets

THREAT, STEPS, STEP, BATCH = Threat.parse("linf:8/255"), 20, 0.125, 50

Attack = Callable[[Tensor, Tensor, int], Tensor]  # pictures, labels, where the batch begins


def sides(model: nn.Module) -> dict[str, Attack]:
    """The three libraries' PGD-20 with one step size."""
    eps = THREAT.eps
    theirs = torchattacks.PGD(model, eps=eps, alpha=STEP * eps, steps=STEPS)
    shown, wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu"), foolbox.attacks.LinfPGD(rel_stepsize=STEP, steps=STEPS)
    twin = fast(model)

    def ours(x: Tensor, y: Tensor, first: int) -> Tensor:
        noise = Noise.of(len(x), first=first)
        return pgd(model, x, y, threat=THREAT, noise=noise, steps=STEPS, step=STEP, stop=True, twin=twin)

    return {
        "forearm": ours,
        "torchattacks": lambda x, y, first: theirs(x, y),
        "foolbox": lambda x, y, first: wrapped(shown, x, y, epsilons=[eps])[1][0],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="PGD-20 beside torchattacks and foolbox.")
    parser.add_argument("--examples", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3, help="after one that is not counted")
    given = parser.parse_args()
    pictures = sets.load("cifar10", "test").first(given.examples)
    x, y = pictures.images.float() / 255, pictures.labels
    model = forearm.load_model("cifar10_backbone")
    attacks = sides(model)
    seconds: dict[str, list[float]] = {name: [] for name in attacks}
    standing: dict[str, list[int]] = {name: [] for name in attacks}
    for turn in range(given.rounds + 1):
        spent, right = dict.fromkeys(attacks, 0.0), dict.fromkeys(attacks, 0)
        for first in range(0, len(x) if turn else min(BATCH, len(x)), BATCH):
            part, label = x[first : first + BATCH], y[first : first + BATCH]
            for name, attack in attacks.items():
                began = time.perf_counter()
                x_adv = attack(part, label, first)
                spent[name] += time.perf_counter() - began
                right[name] += int(verdict(model, x_adv, label)[0].sum())
        for name in attacks if turn else ():
            seconds[name].append(spent[name])
            standing[name].append(right[name])
        print(turn, {name: (round(spent[name], 2), right[name]) for name in attacks}, flush=True)
    times = {
        name: [other / own for other, own in zip(seconds[name], seconds["forearm"], strict=True)] for name in ("torchattacks", "foolbox")
    }
    median = {name: statistics.median(values) for name, values in times.items()}
    apart = max(abs(a - b) for name in times for a, b in zip(standing[name], standing["forearm"], strict=True)) / len(x)
    record(
        "pgd_speed",
        "PGD-20 on the CPU is at least 1.5 times as fast as torchattacks' and twice as fast as foolbox's, and as many pictures stand within 1 %",
        median["torchattacks"],
        "times as fast as torchattacks (median over rounds of the ratio of seconds, sides in turn)",
        n=len(x),
        interval=(min(times["torchattacks"]), max(times["torchattacks"])),
        at_least=1.5,
        holds=median["foolbox"] >= 2.0 and apart <= 0.01,
        details={
            "times_as_fast": median,
            "seconds_per_round": seconds,
            "pictures_standing": standing,
            "counts_apart": apart,
            "versions": {name: importlib.metadata.version(name) for name in times},
        },
    )


if __name__ == "__main__":
    main()
