"""Arm and verify five real photos with the embedded models, offline, and draw them before and after.

    python examples/demo.py [FOLDER]

The photos are those that ship inside scikit-image.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import skimage

from forearm.images.codec import decode
from forearm.report.compare import Pair, before_after

PHOTOS = ("chelsea.png", "astronaut.png", "coffee.png", "rocket.jpg", "motorcycle_left.png")
SHOWN = ("chelsea.png", "rocket.jpg")


def run(*words: str) -> None:
    """A forearm command as a user types it."""
    print(f"\n$ forearm {' '.join(words)}", flush=True)
    subprocess.run([sys.executable, "-m", "forearm", *words], check=True)


def main(folder: Path) -> None:
    photos, armed = folder / "photos", folder / "armed"
    photos.mkdir(parents=True, exist_ok=True)
    for name in PHOTOS:
        shutil.copyfile(Path(skimage.__file__).parent / "data" / name, photos / name)
    run("protect", str(photos), "-o", str(armed))
    run("verify", str(armed))
    pairs = [Pair(decode(photos / name).pixels, decode(armed / name).pixels, name) for name in SHOWN]
    before_after(pairs).save(folder / "before_after.png")
    print(f"\nbefore and after: {folder / 'before_after.png'}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("demo"))
