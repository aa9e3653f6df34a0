"""CIFAR-10 (Krizhevsky, 2009), from lossless mosaics or from the original pickled batches' binary version."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from forearm.data.batches import Pictures
from forearm.errors import InputError

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def _mosaic(path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """100 x 100 tiles of 32 x 32, row-major -> 10000 x 32 x 32 x 3."""
    with Image.open(path) as picture:
        a = np.asarray(picture.convert("RGB"))
    return a.reshape(100, 32, 100, 32, 3).transpose(0, 2, 1, 3, 4).reshape(10000, 32, 32, 3)


def _binary(path: Path) -> tuple[np.ndarray[tuple[int, ...], np.dtype[np.uint8]], np.ndarray[tuple[int, ...], np.dtype[np.uint8]]]:
    """Records of one label byte and 3072 pixel bytes (channels first)."""
    records = np.fromfile(path, np.uint8).reshape(-1, 3073)
    return records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), records[:, 0]


def cifar10(folder: Path, split: str) -> Pictures:
    """The 50,000 `train` or 10,000 `test` pictures in the canonical order."""
    names = [f"train_{i}" for i in range(1, 6)] if split == "train" else ["test"]
    old = [f"data_batch_{i}" for i in range(1, 6)] if split == "train" else ["test_batch"]
    if all((folder / f"{name}.webp").is_file() for name in names):
        pixels = np.concatenate([_mosaic(folder / f"{name}.webp") for name in names])
        with np.load(folder / "labels.npz") as z:
            labels = z[f"y_{split}"]
    elif all((folder / f"{name}.bin").is_file() for name in old):
        parts = [_binary(folder / f"{name}.bin") for name in old]
        pixels, labels = np.concatenate([p for p, _ in parts]), np.concatenate([y for _, y in parts])
    else:
        raise InputError(
            f"{folder}: no CIFAR-10 {split} files; {names[0]}.webp and labels.npz (mosaics) or {old[0]}.bin (the binary version)"
        )
    images = torch.from_numpy(np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)))
    return Pictures(images, torch.from_numpy(labels.astype(np.int64)), CLASSES)
