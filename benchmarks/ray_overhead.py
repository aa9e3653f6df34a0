"""Claim: arming a folder by one Ray worker takes at most a tenth longer than arming it without Ray.

Both sides arm the same CIFAR-10 test pictures, as PNG files, with the same embedded models on one thread and one process that decodes and encodes,
in turn, a quarter of the pictures at a time. Ray's own start and end are part of its side, once; the models are loaded once on either side.

    pip install "forearm[ray]" && OMP_NUM_THREADS=1 python benchmarks/ray_overhead.py [--images 2000] [--defense mspd]
"""

from __future__ import annotations

import argparse
import hashlib
import tempfile
import time
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from claim import record
from forearm.data import sets
from forearm.engines.ray import Fleet
from forearm.jobs.armory import Armory
from forearm.jobs.plan import ProtectJob
from forearm.jobs.protect import protect
from forearm.jobs.remote import Bench, Block

TURNS = 4


def write(folder: Path, count: int) -> None:
    """The first pictures of the test set as PNG, in one folder for each turn."""
    images = sets.load("cifar10", "test").first(count).images
    for number, image in enumerate(images):
        path = folder / str(number * TURNS // count) / f"{number:05}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(path)


def sums(folder: Path) -> dict[str, str]:
    """The sha256 of every armed file."""
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*.png"))}


def main() -> None:
    parser = argparse.ArgumentParser(description="The cost of one Ray worker against none.")
    parser.add_argument("--images", type=int, default=2000, help="an even number of pictures")
    parser.add_argument("--defense", default="mspd")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write(scratch / "in", given.images)
        seconds: dict[str, list[float]] = {"alone": [], "ray": []}
        armory = {side: Armory.open(given.defense, device="cpu") for side in seconds}

        def arm(side: str, turn: int, hands: Fleet[Block] | None) -> None:
            began = time.perf_counter()
            job = ProtectJob((scratch / "in" / str(turn),), scratch / side / str(turn), jobs=1)
            protect(job, armory[side], hands=hands)
            seconds[side].append(time.perf_counter() - began)

        began = time.perf_counter()
        with Fleet[Block](partial(Bench, ProtectJob((), scratch, jobs=1), armory["ray"]), 1) as fleet:
            start = time.perf_counter() - began
            for turn in range(TURNS):  # in turn, so that both sides meet the same machine
                for side in ("alone", "ray")[:: 1 if turn % 2 == 0 else -1]:
                    arm(side, turn, fleet if side == "ray" else None)
            began = time.perf_counter()
        end = time.perf_counter() - began
        same = sums(scratch / "alone") == sums(scratch / "ray")
        armed = len(sums(scratch / "ray"))
    ratio = (start + sum(seconds["ray"]) + end) / sum(seconds["alone"])
    record(
        "ray_overhead",
        f"arming {given.images} CIFAR-size PNG files by one Ray worker takes at most a tenth longer than without Ray, and gives the same bytes",
        100 * (ratio - 1),
        "percent longer (Ray's start and end with it; both sides in turn)",
        n=given.images,
        at_most=10.0,
        holds=same and armed == given.images,
        details={
            "identical": same,
            "armed": armed,
            "defense": given.defense,
            "seconds": seconds,
            "seconds_of_rays_start": start,
            "seconds_of_rays_end": end,
            "percent_longer_once_started": 100 * (sum(seconds["ray"]) / sum(seconds["alone"]) - 1),
            "seconds_a_picture_alone": sum(seconds["alone"]) / given.images,
        },
    )


if __name__ == "__main__":
    main()
