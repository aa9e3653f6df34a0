"""Claim: 200 photos of 0.2 to 12 megapixels are armed in one command under 4 GiB; killed twice and resumed, the result is the same.

The photos are made from real ones by resizing (log-uniform sizes; JPEG, PNG and WebP). One run is left alone; another is killed with SIGKILL
when a third and two thirds of its files are there, and run again. Memory is the sum over the command's processes, one sample a second.

    python benchmarks/protect_folder.py [--photos 200] [--defense mspd]
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from claim import record
from forearm.data import sets

FORMATS = {"jpg": {"quality": 90}, "png": {"compress_level": 1}, "webp": {"quality": 90}}


def make(folder: Path, count: int) -> float:
    """Photos of 0.2 to 12 megapixels in subfolders; returns the megapixels in all."""
    sources = sorted((sets.root() / "imagenet" / "photos").glob("*.JPEG"))
    pick, total = random.Random(0), 0.0
    for i in range(count):
        with Image.open(sources[i % len(sources)]) as photo:
            photo = photo.convert("RGB")
        size = math.exp(pick.uniform(math.log(0.2e6), math.log(12e6)))
        scale = math.sqrt(size / (photo.width * photo.height))
        photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.LANCZOS)
        suffix = pick.choices(list(FORMATS), (8, 1, 1))[0]
        path = folder / f"album{i % 7}" / f"{i:03}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo.save(path, **FORMATS[suffix])
        total += photo.width * photo.height / 1e6
    return total


def resident(root: int) -> int:
    """Bytes of memory that a process and its descendants hold together (proportional set size, so shared pages count once)."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    total, todo = 0, [root]
    while todo:
        pid = todo.pop()
        todo += parents.get(pid, [])
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total


def written(folder: Path) -> dict[str, str]:
    """The armed files and their sha256; the journal and hidden files are left out."""
    files = [p for p in sorted(folder.rglob("*")) if p.is_file() and not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def run(photos: Path, out: Path, defense: str, kill_at: int | None = None) -> tuple[int, int, float]:
    """One `forearm protect`; killed once `kill_at` files are there. Returns exit code, peak memory and seconds."""
    began, peak = time.monotonic(), 0
    command = [sys.executable, "-m", "forearm", "protect", str(photos), "-o", str(out), "--defense", defense]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    while process.poll() is None:
        peak = max(peak, resident(process.pid))
        if kill_at is not None and out.is_dir() and len(written_names(out)) >= kill_at:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        time.sleep(1.0)
    return process.returncode, peak, time.monotonic() - began


def written_names(folder: Path) -> list[Path]:
    return [p for p in folder.rglob("[!.]*.*") if p.suffix[1:] in FORMATS and ".forearm" not in p.parts]


def main() -> None:
    parser = argparse.ArgumentParser(description="A folder of photos in one command, killed twice and resumed.")
    parser.add_argument("--photos", type=int, default=200)
    parser.add_argument("--defense", default="mspd")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        photos, alone, killed = (Path(scratch) / name for name in ("photos", "alone", "killed"))
        megapixels = make(photos, given.photos)
        code, peak, seconds = run(photos, alone, given.defense)
        kills = [run(photos, killed, given.defense, given.photos * k // 3)[0] for k in (1, 2)]
        last, second_peak, _ = run(photos, killed, given.defense)
        lines = [json.loads(line) for line in (alone / ".forearm" / "journal.jsonl").read_text().splitlines()]
        same = written(alone) == written(killed)
        leftovers = [str(p) for p in killed.rglob("*") if p.is_file() and p.name.startswith(".") and p.parent.name != ".forearm"]
        failures = sum(line["status"] == "failed" for line in lines)
        armed = len(written(alone))
    record(
        "protect_folder",
        f"{given.photos} photos of 0.2 to 12 megapixels are armed in one command in under 4 GiB without a failure; killed twice and "
        "resumed, the result is identical",
        max(peak, second_peak) / 2**30,
        "GiB at the peak, all processes",
        n=given.photos,
        at_most=4.0,
        holds=same and failures == 0 and armed == given.photos and code == last == 0 and not leftovers and kills == [-9, -9],
        details={
            "identical": same,
            "failures": failures,
            "armed": armed,
            "exit_codes": {"undisturbed": code, "killed": kills, "resumed": last},
            "half_files_left": leftovers,
            "megapixels": megapixels,
            "seconds": seconds,
            "seconds_per_megapixel": seconds / megapixels,
        },
    )


if __name__ == "__main__":
    main()
