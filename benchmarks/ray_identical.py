"""Claim: however a folder is spread over workers, the armed files and the journal's lines are the same bytes.

The same photos (scikit-image's, cut and resized; PNG, JPEG and WebP of small and photo size) are armed by one process on one thread, by one on two
threads, by two worker processes, in three shards, from and to an object store in memory, by two Ray workers, and by two Ray workers of which one is killed
in the midst of it.

    pip install "forearm[ray,cloud]" scikit-image && python benchmarks/ray_identical.py [--images 40] [--defense "mspd(copies=4)"]
"""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import os
import signal
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import skimage.data
import torch
from PIL import Image

from claim import record
from forearm.engines.objects import protect_objects
from forearm.engines.ray import Fleet
from forearm.images.journal import History, read_all
from forearm.images.objects import Store
from forearm.images.shard import Shard
from forearm.jobs.armory import Armory
from forearm.jobs.plan import ProtectJob
from forearm.jobs.protect import Progress, protect
from forearm.jobs.remote import Bench, Block

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "cat")
SUFFIXES = ("png", "jpg", "webp", "png")


def write(folder: Path, count: int) -> None:
    """Cuts of the photos, three of four 32 pixels wide and the others 288, in two folders."""
    photos = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in PHOTOS]
    for number in range(count):
        photo, side = photos[number % len(photos)], 100 + 7 * (number // len(photos)) % 200
        size = (288, 192) if number % 4 == 3 else (32, 32)
        path = folder / ("a", "b")[number % 2] / f"{number:04}.{SUFFIXES[number % len(SUFFIXES)]}"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.resize(size, Image.Resampling.BILINEAR, box=(number % 50, number % 50, number % 50 + side, number % 50 + side)).save(path)


def found(root: Path) -> dict[str, str]:
    """The sha256 of every armed file, and of its journal line without time and place."""
    files = {str(p.relative_to(root)): p for p in sorted(root.rglob("*.*")) if p.is_file() and ".forearm" not in p.parts}
    told = {
        f"{line.file}: line": repr(dataclasses.replace(line, seconds=None, source=None)) for line in History(read_all(root)).last.values()
    }
    return {name: hashlib.sha256(p.read_bytes()).hexdigest() for name, p in files.items()} | told


def main() -> None:
    parser = argparse.ArgumentParser(description="The same bytes from one process, several, shards, an object store and Ray.")
    parser.add_argument("--images", type=int, default=40)
    parser.add_argument("--defense", default="mspd(copies=4)")
    given = parser.parse_args()
    kills: list[int] = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        write(scratch / "in", given.images)

        def armory() -> Armory:
            return Armory.open(given.defense, device="cpu")

        def job(out: str, **options: object) -> ProtectJob:
            return dataclasses.replace(ProtectJob((scratch / "in",), scratch / out, jobs=1), **options)

        def shards(out: str) -> None:
            for number in (1, 2, 3):
                protect(job(out, shard=Shard(number, 3)), armory())

        def objects(out: str) -> None:
            protect_objects(job(out), [str(scratch / "in")], "memory://armed", armory(), block=16)
            store = Store.open("memory://armed")
            for hidden in (False, True):
                for below in store.find(hidden):
                    (scratch / out / below).parent.mkdir(parents=True, exist_ok=True)
                    (scratch / out / below).write_bytes(store.read(below))

        def ray(out: str, kill: bool) -> None:
            with Fleet[Block](partial(Bench, job(out), armory()), 2) as fleet:

                def report(event: Progress) -> None:
                    if kill and not kills and event.stage == "arm" and len(fleet.pids) == 2:
                        kills.append(event.done)
                        os.kill(fleet.pids[0], signal.SIGKILL)

                protect(job(out), armory(), report, hands=fleet)

        ways: dict[str, Callable[[str], object]] = {
            "one process": lambda out: protect(job(out), armory()),
            "two threads": lambda out: protect(job(out), armory()),
            "two processes": lambda out: protect(job(out, jobs=2, batch=3), armory()),
            "three shards": shards,
            "object store": objects,
            "two Ray workers": lambda out: ray(out, kill=False),
            "two Ray workers, one killed": lambda out: ray(out, kill=True),
        }
        seconds, results = {}, {}
        for way, arm in ways.items():
            torch.set_num_threads(1 if way == "one process" else 2)
            began = time.monotonic()
            arm(way)
            seconds[way] = round(time.monotonic() - began, 1)
            results[way] = found(scratch / way)
            print(f"{way}: {len(results[way])} files and lines, {seconds[way]} s", flush=True)
    first = results["one process"]
    differing = {way: sum(first.get(key) != other.get(key) for key in first.keys() | other.keys()) for way, other in results.items()}
    record(
        "ray_identical",
        "armed on one thread or two, by two processes, in three shards, through an object store, by two Ray workers, one of them killed: the same bytes",
        sum(differing.values()),
        "files and journal lines that differ or are missing",
        n=given.images * (len(ways) - 1),
        at_most=0,
        holds=len(first) == 2 * given.images and len(kills) == 1 and kills[0] < given.images,
        details={"images": given.images, "defense": given.defense, "differing": differing, "killed_after": kills, "seconds": seconds},
    )


if __name__ == "__main__":
    main()
