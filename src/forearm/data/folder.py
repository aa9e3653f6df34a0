"""Photos in a folder with a `labels.csv` (columns file, index, name, and optionally split and origin)."""

from __future__ import annotations

import csv
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from forearm.data.batches import Pictures
from forearm.errors import InputError


def square(path: Path, side: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """The centre square of a photo at `side` x `side`, RGB (antialiased bilinear)."""
    with Image.open(path) as photo:
        rgb = photo.convert("RGB")
    edge = min(rgb.size)
    left, top = (rgb.width - edge) // 2, (rgb.height - edge) // 2
    box = (left, top, left + edge, top + edge)
    return np.asarray(rgb.resize((side, side), Image.Resampling.BILINEAR, box=box))


def labelled_folder(folder: Path, side: int, keep: Callable[[dict[str, str]], bool] = lambda _: True) -> Pictures:
    """The photos that `keep` chooses from `labels.csv`, as `side` x `side` centre squares. Classes are numbered by their index column."""
    table = folder / "labels.csv"
    if not table.is_file():
        raise InputError(f"{folder}: no labels.csv; a table with the columns file, index and name")
    with table.open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = {int(row["index"]): row["name"] for row in rows}
    order = {index: i for i, index in enumerate(sorted(names))}
    kept = [row for row in rows if keep(row)]
    with ThreadPoolExecutor(2) as pool:
        pixels = list(pool.map(lambda row: square(folder / row["file"], side), kept))
    images = torch.from_numpy(np.ascontiguousarray(np.stack(pixels).transpose(0, 3, 1, 2)))
    labels = torch.tensor([order[int(row["index"])] for row in kept])
    return Pictures(images, labels, tuple(names[index] for index in sorted(names)))


def imagenette(folder: Path, split: str, side: int = 128) -> Pictures:
    """Imagenette: `test` is the 500 photos of ImageNet's own validation set, `train` the 4,500 others."""
    return labelled_folder(folder, side, lambda row: (row["origin"] == "ilsvrc_val") == (split == "test"))
