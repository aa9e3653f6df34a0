"""Claim: the one process that plans, journals and writes for all workers of a run keeps up with 100 workers.

Its workers are played by this process, and the time that they take is taken off: what is left is what a run cannot spread over workers. Each photo is
hashed, sent out with its block, journalled and written, each with its own sync; the workers change every pixel by a level at most and encode. Against it
stands what a worker needs for a photo (`benchmarks/results/protect_folder.json`: processor seconds of a photo of 0.2 to 12 megapixels). Also told:
what a rerun needs to find a photo done (seconds, and memory at the peak), and what listing needs. All of it goes into the plan of docs/scale.md.

    OMP_NUM_THREADS=1 python benchmarks/ray_driver.py [--photos 1000] [--names 50000]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
import tracemalloc
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import skimage.data
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.jobs.armourers import Fake

from claim import RESULTS, record
from forearm.jobs.plan import ProtectJob, survey
from forearm.jobs.protect import protect
from forearm.jobs.remote import Bench, Block

SIZE = (500, 375)


class Played:
    """Hands whose work is done here, one block after the other; `seconds`: what it took."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.capacity = 4
        self.waiting: deque[tuple[Block, Callable[..., Any], Any]] = deque()
        self.seconds = 0.0

    def submit(self, ticket: Block, work: Callable[..., Any], request: object) -> None:
        self.waiting.append((ticket, work, request))

    def answers(self) -> list[tuple[Block, Any]]:
        began = time.perf_counter()
        ticket, work, request = self.waiting.popleft()
        answer = work(self.bench, request)
        self.seconds += time.perf_counter() - began
        return [(ticket, answer)]


def write(folder: Path, count: int) -> int:
    """Cuts of a photo as JPEG, all different; their bytes."""
    photo = Image.fromarray(skimage.data.astronaut()).convert("RGB")
    folder.mkdir()
    total = 0
    for number in range(count):
        path = folder / f"{number:05}.jpg"
        left, top = number % 100, number // 100 % 100
        photo.resize(SIZE, Image.Resampling.BILINEAR, box=(left, top, left + 400, top + 300)).save(path, quality=90)
        total += path.stat().st_size
    return total


def resident() -> int:
    """Bytes of memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def list_names(folder: Path, count: int) -> tuple[float, float]:
    """Seconds and bytes of memory a name, to list a tree of empty files in folders of a thousand."""
    for number in range(count):
        path = folder / f"{number // 1000:04}" / f"{number:08}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    before, began = resident(), time.perf_counter()
    found, _ = survey(ProtectJob((folder,), folder.with_name("out")))
    seconds, grown = time.perf_counter() - began, resident() - before
    assert len(found) == count
    return seconds / count, grown / count


def main() -> None:
    parser = argparse.ArgumentParser(description="What the process that plans, journals and writes needs for a photo.")
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--names", type=int, default=50_000)
    given = parser.parse_args()
    folder = json.loads((RESULTS / "protect_folder.json").read_text())
    worker = folder["details"]["seconds"] * folder["machine"]["threads"] / folder["n"]
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        read = write(scratch / "in", given.photos)
        job = ProtectJob((scratch / "in",), scratch / "out", jobs=1)
        hands = Played(Bench(job, Fake()))
        with hands.bench.crew:
            began = time.perf_counter()
            summary = protect(job, Fake(), hands=hands)
            first = (time.perf_counter() - began - hands.seconds) / given.photos
        began = time.perf_counter()
        again = protect(job, Fake(), hands=hands)
        rerun = (time.perf_counter() - began) / given.photos
        tracemalloc.start()  # in a run of its own, which it slows
        protect(job, Fake(), hands=hands)
        grown = tracemalloc.get_traced_memory()[1] / given.photos
        tracemalloc.stop()
        written = sum(path.stat().st_size for path in (scratch / "out").glob("*.jpg"))
        listed, named = list_names(scratch / "names", given.names)
    record(
        "ray_driver",
        "the process that plans, journals and writes for all workers of a run keeps up with 100 workers that arm photos",
        worker / first,
        "workers, at its seconds and theirs for a photo",
        n=given.photos,
        at_least=100.0,
        holds=len(summary.armed) == len(again.done) == given.photos,
        details={
            "seconds_a_photo": first,
            "seconds_a_photo_that_is_done": rerun,
            "seconds_a_photo_of_a_worker": worker,
            "bytes_read_a_photo": read / given.photos,
            "bytes_written_a_photo": written / given.photos,
            "memory_a_photo": grown,
            "names": given.names,
            "seconds_a_name": listed,
            "memory_a_name": named,
        },
    )


if __name__ == "__main__":
    main()
