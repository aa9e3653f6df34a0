"""Claim: an audit killed 20 times at random moments and resumed leaves byte for byte the store of an undisturbed one, with one worker or two.

The embedded CIFAR-10 model on 32 x 32 crops of scikit-image's photos under the model's own labels: bare, protected by MSPD and behind GCM, three
attacks, attackers who know and who do not, masking verdicts. One run with one worker is left alone. Another, with two, is killed with SIGKILL, all
its processes at once, when 0 to 3 more files are there than at its start and up to 0.3 s later, 20 times, and then run to its end.

    pip install "forearm[demo]" && python benchmarks/audit_resume.py [--kills 20]
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image

import forearm
from claim import record
from forearm.evaluate.store import Store

PHOTOS = ("astronaut", "chelsea", "coffee", "rocket", "cat")
EXAMPLES = 50
MATRIX = f"""
dataset = "cifar10"
examples = {EXAMPLES}
[[grid]]
models = ["cifar10_backbone"]
defenses = ["none", "mspd(copies=4)", "conceal"]
attacks = ["fgsm", "pgd(steps=5)", "square(queries=20)"]
threats = ["linf:8/255"]
"""


def write_pictures(folder: Path) -> None:
    """Crops of the photos at several sizes, resized to 32 x 32, in the binary version of CIFAR-10."""
    crops: list[np.ndarray[tuple[int, ...], np.dtype[np.uint8]]] = []
    pick = random.Random(0)
    photos = [Image.fromarray(getattr(skimage.data, name)()).convert("RGB") for name in PHOTOS]
    while len(crops) < EXAMPLES:
        photo = photos[len(crops) % len(photos)]
        side = pick.randint(64, min(photo.size))
        left, top = pick.randint(0, photo.width - side), pick.randint(0, photo.height - side)
        crops.append(np.asarray(photo.resize((32, 32), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side))))
    pixels = torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2)
    with torch.no_grad():
        y = forearm.load_model("cifar10_backbone")(pixels.float() / 255.0).argmax(1)
    (folder / "cifar10").mkdir(parents=True)
    torch.cat([y[:, None].to(torch.uint8), pixels.flatten(1)], 1).numpy().tofile(folder / "cifar10" / "test_batch.bin")


def sums(store: Path) -> dict[str, str]:
    """The sha256 of every file of a store."""
    return {str(p.relative_to(store)): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(store.rglob("*")) if p.is_file()}


def named(store: Path) -> list[Path]:
    """The files of a store that have their names."""
    return [path for folder in ("cells", "releases", "masking") for path in (store / folder).rglob("[!.]*.*")]


def start(scratch: Path, store: Path, jobs: int) -> subprocess.Popen[bytes]:
    """One `forearm audit`."""
    command = [
        sys.executable,
        "-m",
        "forearm",
        "audit",
        str(scratch / "matrix.toml"),
        "--store",
        str(store),
        "--data",
        str(scratch / "data"),
    ]
    return subprocess.Popen([*command, "--jobs", str(jobs)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)


def killed(scratch: Path, store: Path, pick: random.Random) -> tuple[int | None, int]:
    """One audit that is killed: its exit code, and how many files had their names then."""
    process = start(scratch, store, 2)
    enough, late = len(named(store)) + pick.randint(0, 3), pick.uniform(0.0, 0.3)
    time.sleep(pick.uniform(0.0, 3.0))
    while process.poll() is None and len(named(store)) < enough:
        time.sleep(0.01)
    time.sleep(late)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return process.returncode, len(named(store))


def main() -> None:
    parser = argparse.ArgumentParser(description="An audit killed many times and resumed.")
    parser.add_argument("--kills", type=int, default=20)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        alone, broken = scratch / "alone", scratch / "broken"
        write_pictures(scratch / "data")
        (scratch / "matrix.toml").write_text(MATRIX)
        began = time.monotonic()
        first = start(scratch, alone, 1).wait()
        seconds = time.monotonic() - began
        pick = random.Random(0)
        kills = []
        for number in range(given.kills):
            kills.append(killed(scratch, broken, pick))
            print(f"kill {number + 1}: {kills[-1][1]} of {len(named(alone))} files are there", flush=True)
        last = start(scratch, broken, 2).wait()
        whole, resumed = sums(alone), sums(broken)
        rows = sum(len(Store(broken).rows(cell)) for cell in Store(broken).cells())
        masked = {verdict["about"]["defense"]: verdict["verdict"]["masked"] for verdict in Store(broken).masking()}
    differing = len({name for name in whole.keys() | resumed.keys() if whole.get(name) != resumed.get(name)})
    record(
        "audit_resume",
        f"an audit killed {given.kills} times at random moments and resumed leaves byte for byte the store of an undisturbed one",
        differing,
        "files that differ or are missing",
        n=len(whole),
        at_most=0,
        holds=first == last == 0 and all(code == -signal.SIGKILL for code, _ in kills) and len(whole) > 0,
        details={
            "kills": len(kills),
            "exit_codes": {"undisturbed": first, "killed": [code for code, _ in kills], "resumed": last},
            "files_at_kills": [count for _, count in kills],
            "workers": {"undisturbed": 1, "killed": 2},
            "rows": rows,
            "masked": masked,
            "seconds_undisturbed": round(seconds, 1),
        },
    )


if __name__ == "__main__":
    main()
