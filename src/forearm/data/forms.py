"""The forms in which one data set is published: which files make it up, and what reads them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from forearm.data.batches import Pictures
from forearm.errors import InputError, SpecError

Arrays = tuple[NDArray[np.uint8], NDArray[np.integer]]  # pixels `n c h w` and labels `n`


@dataclass(frozen=True, slots=True)
class Form:
    """`names`: the files, all needed. `says`: them, in words ("": another form says it).

    `read(paths, first)`: at least the first so many pictures (None: all).
    """

    names: tuple[str, ...]
    says: str
    read: Callable[[Sequence[Path], int | None], Arrays]


def known_split(name: str, split: str, splits: tuple[str, ...] = ("train", "test")) -> None:
    """SpecError unless `split` is one of the data set's."""
    if split not in splits:
        raise SpecError(f"{name}: got the split {split!r}; one of {', '.join(splits)}, for example 'test'")


def known_first(first: int | None) -> None:
    """SpecError unless `first` is None (all pictures) or a whole number from 0."""
    if first is not None and (not isinstance(first, int) or isinstance(first, bool) or first < 0):
        raise SpecError(f"first: got {first!r}; a whole number of pictures from 0, for example 1000")


def labelled(where: Path, pixels: NDArray[np.uint8], labels: NDArray[np.integer], classes: tuple[str, ...], first: int | None) -> Pictures:
    """The first pictures of `pixels` (`n c h w`), their labels checked against the classes (InputError)."""
    pixels, labels = pixels[:first], labels[:first]
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or len(pixels) != len(labels):
        raise InputError(f"{where}: {len(pixels)} pictures, labels of shape {labels.shape} ({labels.dtype}); one whole number a picture")
    if len(labels) and (labels.min() < 0 or labels.max() >= len(classes)):
        raise InputError(f"{where}: labels from {labels.min()} to {labels.max()}; 0 to {len(classes) - 1}, for {len(classes)} classes")
    images = torch.from_numpy(np.require(pixels, requirements=["C", "W"]))
    return Pictures(images, torch.from_numpy(labels.astype(np.int64)), classes)


def read_form(
    folder: Path,
    what: str,
    forms: Sequence[Form],
    *,
    places: Sequence[str] = (),
    shape: tuple[int, int, int],
    classes: tuple[str, ...],
    first: int | None,
) -> Pictures:
    """Read the first form that is whole in `folder` or in one of the `places` below it.

    Asked for the first 0 pictures it only looks whether the files are there. InputError where no form is whole; it names them all.
    """
    known_first(first)
    for place in (folder, *(folder / name for name in places)):
        for form in forms:
            paths = [place / name for name in form.names]
            if all(path.is_file() for path in paths):
                if first == 0:
                    return Pictures(torch.zeros(0, *shape, dtype=torch.uint8), torch.zeros(0, dtype=torch.int64), classes)
                pixels, labels = form.read(paths, first)
                if pixels.shape[1:] != shape:
                    raise InputError(f"{paths[0]}: pictures of shape {pixels.shape[1:]}; {shape}, channels first")
                return labelled(paths[0], pixels, labels, classes, first)
    raise InputError(f"{folder}: no {what} files; {', or '.join(form.says for form in forms if form.says)}")


def in_series(paths: Sequence[Path], first: int | None, read: Callable[[Path], Arrays]) -> Arrays:
    """Files that continue each other, read until the first so many pictures are there."""
    parts: list[Arrays] = []
    for path in paths:
        if first is None or sum(len(labels) for _, labels in parts) < first:
            parts.append(read(path))
    return np.concatenate([pixels for pixels, _ in parts]), np.concatenate([labels for _, labels in parts])
