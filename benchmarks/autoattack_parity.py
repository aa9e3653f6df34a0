"""Claim: on a small adversarially trained net AutoAttack leaves the same robust accuracy as pyautoattack, within half a point, over 1,000 pictures.

CNN-A of the verification literature, trained against PGD (`cnn_a_adv4`), CIFAR-10's first test pictures, Linf 8/255, the standard version at the published
schedule on both sides: 100 steps, 9 targets, 5,000 queries. pyautoattack is the authors' code as packaged. Parts of 100 pictures, each written to
`runs/autoattack_parity/` when done, so that a broken run goes on where it was.

pyautoattack is no dependency of this project; the script needs it beside it:

    python -m venv oracle && oracle/bin/pip install -c constraints.txt -e '.[dev]' && oracle/bin/pip install --no-deps pyautoattack==0.2.0
    FOREARM_DATA=... oracle/bin/python benchmarks/autoattack_parity.py [--examples 1000] [--model cnn_a_adv4]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import time
from pathlib import Path

import pyautoattack
import torch
from torch import Tensor, nn

import forearm
from claim import record
from forearm.attacks.autoattack import autoattack
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.precision import fast, folded, verdict
from forearm.core.threat import Threat
from forearm.data import sets
from forearm.evaluate.statistics import wilson

THREAT, PART = Threat.parse("linf:8/255"), 100
RUNS = Path(__file__).parents[1] / "runs" / "autoattack_parity"
FILES = {"cnn_a_adv4": "cifar_cnn_a_adv4.model", "resnet2b": "resnet2b.pth"}


def load(name: str) -> nn.Module:
    """A net of the verification literature by its name, or one that is embedded."""
    if name not in FILES:
        return forearm.load_model(name)
    return forearm.load_model(f"{name}={sets.root() / 'cifar10_weights' / 'abcrown' / FILES[name]}")


def theirs(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """pyautoattack's standard evaluation, as its own page runs it."""
    x_adv: Tensor = pyautoattack.AutoAttack(model, norm="Linf", eps=THREAT.eps, version="standard", seed=0).run_standard_evaluation(x, y)[0]
    return x_adv


def ours(model: nn.Module, x: Tensor, y: Tensor, first: int, twin: Classifier | None, near: Classifier | None = None) -> Tensor:
    """The same by this project; the pictures' ids are their places in the test set."""
    return autoattack(model, x, y, threat=THREAT, noise=Noise.of(len(x), first=first), twin=twin, folded=near)


def judged(model: nn.Module, x_adv: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Which pictures stand, in float32; a change that leaves the ball is no attack."""
    assert float((x_adv - x).abs().max()) <= THREAT.eps + 1e-6
    return verdict(model, x_adv, y)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description="AutoAttack beside pyautoattack, picture by picture.")
    parser.add_argument("--examples", type=int, default=1000)
    parser.add_argument("--model", default="cnn_a_adv4", help="cnn_a_adv4, resnet2b, or an embedded model")
    parser.add_argument("--twin", action="store_true", help="our attack works on the faster copies of the model (`core.precision`)")
    given = parser.parse_args()
    pictures = sets.load("cifar10", "test").first(given.examples)
    x, y, model = pictures.images.float() / 255, pictures.labels, load(given.model)
    twin, near = (fast(model), folded(model)) if given.twin else (None, None)
    clean = torch.cat([verdict(model, *part)[0] for part in zip(x.split(PART), y.split(PART), strict=True)])
    stands: dict[str, list[bool]] = {"forearm": [], "pyautoattack": []}
    for first in range(0, len(x), PART):
        part, label = x[first : first + PART], y[first : first + PART]
        kept = RUNS / f"{given.model}{'-twin' if twin else ''}-{first}-{len(part)}.json"
        if not kept.exists():
            began = time.perf_counter()
            done = {
                "forearm": judged(model, ours(model, part, label, first, twin, near), part, label).tolist(),
                "pyautoattack": judged(model, theirs(model, part, label), part, label).tolist(),
            }
            RUNS.mkdir(parents=True, exist_ok=True)
            partial = kept.with_suffix(".part")
            partial.write_text(json.dumps(done))
            partial.replace(kept)
            print(f"{first + len(part)} of {len(x)}: {time.perf_counter() - began:.0f} s", flush=True)
        for name, flags in json.loads(kept.read_text()).items():
            stands[name] += flags
    n = len(x)
    count = {name: sum(flags) for name, flags in stands.items()}
    only = {
        f"stand_only_under_{name}": [i for i in range(n) if stands[name][i] and not stands[other][i]]
        for name, other in (("forearm", "pyautoattack"), ("pyautoattack", "forearm"))
    }
    record(
        "autoattack_parity",
        "AutoAttack and pyautoattack leave the same robust accuracy within half a point, at the published standard schedule",
        100 * abs(count["forearm"] - count["pyautoattack"]) / n,
        "points of robust accuracy between the two",
        n=n,
        at_most=0.5,
        details={
            "model": given.model,
            "twin": given.twin,
            "clean_percent": 100 * float(clean.float().mean()),
            "robust_percent": {name: 100 * k / n for name, k in count.items()},
            "robust_interval": {name: wilson(k, n) for name, k in count.items()},
            **only,
            "versions": {"pyautoattack": importlib.metadata.version("pyautoattack")},
        },
    )


if __name__ == "__main__":
    main()
