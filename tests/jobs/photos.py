"""Small picture folders for tests of the folder job, and ways to compare what came out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def paint(path: Path, seed: int, height: int = 24, width: int = 32, mode: str = "RGB") -> Path:
    """A picture of smooth noise, in the format of its name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 4, 3) if mode == "RGB" else (4, 4), dtype=np.uint8)
    Image.fromarray(coarse).resize((width, height)).save(path)
    return path


def album(root: Path, count: int = 8, suffixes: tuple[str, ...] = ("png", "jpg", "bmp", "webp")) -> Path:
    """`count` pictures of two sizes and these formats in two folders."""
    for number in range(count):
        suffix = suffixes[number % len(suffixes)]
        folder = root / "summer" if number % 3 else root
        paint(folder / f"{number:02}.{suffix}", number, 24 + 8 * (number % 2))
    return root


def tree(root: Path) -> dict[str, bytes]:
    """Every file below `root` but the journal's: name -> bytes. Temporary files are among them."""
    files = (path for path in root.rglob("*") if path.is_file() and ".forearm" not in path.relative_to(root).parts)
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in files}


def journal(root: Path) -> dict[str, dict[str, Any]]:
    """The last line of each file, without what differs from run to run."""
    last = {}
    for text in (root / ".forearm" / "journal.jsonl").read_text().splitlines():
        line = json.loads(text)
        last[line["file"]] = {name: value for name, value in line.items() if name not in ("seconds", "source")}
    return last
