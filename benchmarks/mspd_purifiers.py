"""Claim: no standard purifier between release and attack removes MSPD's gain on robust targets that it never saw.

Release and bare picture go through the same channel (JPEG 90, 75, 50; 5 and 4 bits; Gaussian blur; median; uniform noise; down and up by a half; a
denoising autoencoder and a MID student of the zoo), are rounded to 8 bits, and are attacked with PGD-20 at 8/255 around that; CIFAR-10's first test images, the
labeller's labels, accuracy against the true ones. With robust accuracies R, what a channel leaves of the gain is

    (R(release, channel) - R(bare, channel)) / (R(release) - R(bare))

on the mean of held-out targets, with a bootstrap interval over pictures, both gains drawn together. The claim's value is the least lower bound, over
channels, of the numerator, picture by picture. Needs the data sets in FOREARM_DATA; `mspd_cells.py` says how runs resume.

    OMP_NUM_THREADS=1 python benchmarks/mspd_purifiers.py [--examples 150] [--autoencoders NAME ...] [--minutes 60]
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

import forearm
from claim import record
from forearm.core.channel import CHANNELS
from forearm.core.noise import Noise
from forearm.core.quantize import to_8bit
from forearm.models.load import Model
from forearm.registry import bind
from mspd_cells import BACKBONE, FIGURES, Cell, Row, Stand, compared, missing, run, verdicts_of
from mspd_table import Verdicts

PURIFIERS = {
    "JPEG 90": "jpeg(quality=90)",
    "JPEG 75": "jpeg(quality=75)",
    "JPEG 50": "jpeg(quality=50)",
    "5 bits": "bit_depth(bits=5)",
    "4 bits": "bit_depth(bits=4)",
    "Gaussian, sigma .5": "gaussian(sigma=0.5)",
    "Gaussian, sigma 1": "gaussian(sigma=1.0)",
    "median 3 x 3": "median(size=3)",
    "uniform noise, 8/255": "uniform",
    "down to 16, up to 32": "resize",
}
DRAWS = 2000  # of the bootstrap

Channel = Callable[[Tensor, Tensor], Tensor]  # pictures and their ids -> pictures


def worn(release: str, channel: Channel, stand: Stand, start: int) -> Cell:
    return stand.judged(start, to_8bit(channel(stand.release(release, start), stand.ids(start))))


def through(spec: str) -> Channel:
    return lambda x, ids: bind(CHANNELS, spec)(x, noise=Noise(2, ids))


def regenerated(model: Model) -> Channel:
    """The pictures as an autoencoder makes them again."""

    def again(x: Tensor, ids: Tensor) -> Tensor:
        with torch.no_grad():
            made: Tensor = model.network.regenerate(x)
        return made

    return again


def rows_of(autoencoders: Sequence[str]) -> dict[str, Row]:
    """Bare and armed pictures, as they are and through every channel."""
    channels = {"": ("none", through("none"))} | {name: (spec, through(spec)) for name, spec in PURIFIERS.items()}
    for model in map(forearm.load_model, autoencoders):
        channels[f"made again by {model.card.name}"] = (f"autoencoder {model.card.sha256}", regenerated(model))
    return {
        f"{release}{', ' if name else ''}{name}": Row(f"{release} {what}", partial(worn, release, channel))
        for name, (what, channel) in channels.items()
        for release in ("none", "mspd")
    }


def left(found: dict[str, dict[str, Verdicts]], names: list[str], channel: str) -> dict[str, Any] | None:
    """The share of the mean gain that a channel leaves, with where 95 % of its bootstrap draws over pictures lie; None where the gain is 0."""
    keys = ("mspd", "none", f"mspd, {channel}", f"none, {channel}")
    ids = sorted(set.intersection(*(set(found[key][name]) for key in keys for name in names)))
    if not ids:
        return None
    armed, bare, worn_armed, worn_bare = (np.array([[found[key][t][i][1] for i in ids] for t in names], float).mean(0) for key in keys)
    gain, kept = armed - bare, worn_armed - worn_bare
    if not gain.mean():
        return None
    picked = np.random.default_rng(0).integers(0, len(ids), (DRAWS, len(ids)))
    whole = gain[picked].mean(1)
    draws = np.divide(kept[picked].mean(1), whole, out=np.full(DRAWS, np.nan), where=whole != 0)
    low, high = np.nanquantile(draws, (0.025, 0.975))
    return {"value": float(kept.mean() / gain.mean()), "interval": [float(low), float(high)], "n": len(ids)}


def summed(stand: Stand, rows: dict[str, Row]) -> dict[str, Any]:
    """Every channel through which both pictures were measured; "" is none at all."""
    found = verdicts_of(stand, rows)
    made = {}
    for name in found:
        release, _, channel = name.partition(", ")
        other = f"none{name.removeprefix('mspd')}"
        if release != "mspd" or other not in found:
            continue
        both = {"mspd": found[name], "none": found[other]}
        made[channel] = {which: compared(stand, both, which, ("none",)) for which in both}
        if channel and "mspd" in found and "none" in found:
            made[channel]["kept"] = {
                "backbone": left(found, [BACKBONE], channel),
                "held out": left(found, stand.held_out(), channel),
            }
    return {"channels": made, "absent": list(stand.absent), "not measured": missing(stand, rows)}


def draw(channels: dict[str, Any]) -> None:
    """`docs/pictures/mspd_purifiers.png`: mean robust accuracy of held-out targets, bare and armed, through each channel."""
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7.6, 0.36 * len(channels) + 1.1))
    for shift, (which, label, colour) in enumerate((("none", "bare picture", "tab:gray"), ("mspd", "armed with MSPD", "tab:blue"))):
        cells = [row[which]["held out"]["robust"] for row in channels.values()]
        value = [100 * cell["value"] for cell in cells]
        bars = [
            [v - 100 * c["interval"][0] for v, c in zip(value, cells, strict=True)],
            [100 * c["interval"][1] - v for v, c in zip(value, cells, strict=True)],
        ]
        places = [i + 0.14 * (2 * shift - 1) for i in range(len(channels))]
        axis.errorbar(value, places, xerr=bars, fmt="o", ms=4, capsize=2, lw=1, color=colour, label=label)
    axis.set_yticks(range(len(channels)), [name or "no channel" for name in channels], fontsize=8)
    axis.invert_yaxis()
    axis.grid(axis="x", lw=0.3)
    axis.set_xlabel("PGD-20 accuracy after the channel, mean of held-out targets, %", fontsize=8)
    axis.legend(fontsize=8)
    figure.tight_layout()
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / "mspd_purifiers.png", dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description="What purifiers between release and attack leave of MSPD's gain.")
    parser.add_argument("--examples", type=int, default=150)
    parser.add_argument(
        "--autoencoders", nargs="*", default=["cifar10_denoiser", "cifar10_mid"], help="denoisers or students of MID, by name or folder"
    )
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many, between two units")
    given = parser.parse_args()
    stand = Stand.load("mspd_purifiers", given.examples)
    rows = rows_of(given.autoencoders)
    run(stand, rows, given.minutes)
    details = summed(stand, rows)
    gains = {name: row["mspd"]["held out"]["above none"] for name, row in details["channels"].items() if name}
    if not gains or None in gains.values():
        print("no claim yet: too little is measured")
        return
    worst = min(gains, key=lambda name: gains[name]["interval"][0])
    low, high = gains[worst]["interval"]
    record(
        "mspd_purifiers",
        "no standard purifier between release and attack removes MSPD's gain on robust targets that it never saw",
        100 * low,
        f"points of PGD-20 accuracy above the bare picture, the least lower bound over {len(gains)} purifiers ({worst})",
        n=gains[worst]["n"],
        interval=(100 * low, 100 * high),
        at_least=0.0,
        holds=low > 0,
        details=details | {"worst": worst},
    )
    draw(details["channels"])


if __name__ == "__main__":
    main()
