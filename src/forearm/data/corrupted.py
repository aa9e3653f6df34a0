"""Corrupted test sets: CIFAR-10-C as published (Hendrycks and Dietterich, ICLR 2019), and sets that the same operations make."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from forearm.core.noise import Noise
from forearm.core.quantize import levels
from forearm.data.arrays import channels_first
from forearm.data.batches import Pictures
from forearm.data.cifar import CLASSES, cifar10
from forearm.data.corruptions.severity import index
from forearm.data.corruptions.table import CORRUPTIONS, PUBLISHED
from forearm.data.forms import known_first, known_split, labelled
from forearm.errors import InputError, SpecError
from forearm.registry import resolve

BLOCK = 250  # pictures that are corrupted together
SOURCES = ("either", "published", "made")


def corrupted(pictures: Pictures, name: str, severity: int = 3, seed: int = 0) -> Pictures:
    """`pictures` after one operation of `CORRUPTIONS` at a severity of 1 to 5, rounded to 8 bits.

    A picture's noise depends on `seed`, the operation and its position in `pictures` alone; it is the same at every severity. SpecError for a name or
    severity that does not exist. Cost: below 1 ms a picture of 32 pixels on a CPU core.
    """
    operation = resolve(CORRUPTIONS, name)
    index(severity)
    images = torch.empty_like(pictures.images)
    for batch in pictures.batches(BLOCK):
        noise = Noise(seed, batch.ids).stream(name)
        images[batch.ids] = levels(operation(batch.x, noise=noise, severity=severity))
    return Pictures(images, pictures.labels, pictures.classes)


def cifar10_c(
    folder: Path,
    split: str,
    *,
    corruption: str = "gaussian_noise",
    severity: int = 3,
    source: str = "either",
    seed: int = 0,
    first: int | None = None,
) -> Pictures:
    """The 10,000 `test` pictures of CIFAR-10 after one operation at one severity, in the canonical order, `n 3 32 32`; the `first` so many.

    `source="published"` reads CIFAR-10-C's arrays (`fog.npy`, `labels.npy`, five times 10,000 pictures, here or in `CIFAR-10-C`); "made" corrupts the
    CIFAR-10 that lies beside `folder` by this package's operations (`corrupted`, with `seed`); "either" takes what is published where that file is
    there. The two are not the same pictures: the published ones have other random draws and other frost. SpecError for an option that does not exist,
    InputError where the files are not there or not good.
    """
    known_split("cifar10_c", split, ("test",))
    known_first(first)
    if source not in SOURCES:
        raise SpecError(f"cifar10_c: got source={source!r}; one of {', '.join(SOURCES)}, for example 'made'")
    resolve(CORRUPTIONS, corruption)
    at = index(severity)
    places = (folder, folder / "CIFAR-10-C")
    held = next((place for place in places if (place / f"{corruption}.npy").is_file()), None)
    if held is not None and source != "made":
        return _published(held / f"{corruption}.npy", held / "labels.npy", at, first)
    if source == "published":
        known = "" if corruption in PUBLISHED else f" (CIFAR-10-C has {', '.join(PUBLISHED)})"
        raise InputError(f"{folder}: no {corruption}.npy{known}; the arrays of CIFAR-10-C, or source='made'")
    return corrupted(cifar10(folder.parent / "cifar10", split, first=first), corruption, severity, seed)


def _published(file: Path, table: Path, at: int, first: int | None) -> Pictures:
    """One severity of a published file: the `at`-th fifth of its pictures, and of the labels beside it."""
    pixels, labels = _array(file), _array(table)
    if pixels.ndim != 4 or len(pixels) % 5 or len(labels) != len(pixels):
        raise InputError(
            f"{file}: shape {pixels.shape}, labels {labels.shape}; five severities of n x 32 x 32 x 3, for example 50000 in all"
        )
    each = len(pixels) // 5
    some = slice(at * each, at * each + (each if first is None else min(first, each)))
    return labelled(file, channels_first(file, np.array(pixels[some])), np.array(labels[some]), CLASSES, first)


def _array(file: Path) -> NDArray[np.uint8]:
    """A `.npy` of numbers, left on disk until it is indexed. InputError where it is none."""
    try:
        held: NDArray[np.uint8] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        why = " ".join(str(error).split())[:120]
        raise InputError(f"{file}: cannot be read as an array ({why}); an array of CIFAR-10-C, for example fog.npy") from None
    return held
