"""MNIST (LeCun et al., 1998) and Fashion-MNIST (Xiao et al., 2017): the published idx files, `.npz` arrays, and mosaics."""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import IO, cast

import numpy as np
from numpy.typing import NDArray

from forearm.data.arrays import npz_form, stored_labels
from forearm.data.batches import Pictures
from forearm.data.forms import Arrays, Form, known_split, read_form
from forearm.data.photos import MOST, open_photo
from forearm.errors import InputError

DIGITS = tuple("0123456789")
CLOTHES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle_boot")


def mnist(folder: Path, split: str, *, rgb: bool = False, first: int | None = None) -> Pictures:
    """The 60,000 `train` or 10,000 `test` digits in the canonical order; the `first` so many.

    One channel, `n 1 28 28`, as published; `rgb=True` repeats it three times for models that take RGB.
    """
    return _read(folder, "mnist", split, "MNIST", DIGITS, rgb, first)


def fashion_mnist(folder: Path, split: str, *, rgb: bool = False, first: int | None = None) -> Pictures:
    """The 60,000 `train` or 10,000 `test` pictures of clothes, in the same files and shapes as `mnist`."""
    return _read(folder, "fashion_mnist", split, "Fashion-MNIST", CLOTHES, rgb, first)


def _read(folder: Path, name: str, split: str, title: str, classes: tuple[str, ...], rgb: bool, first: int | None) -> Pictures:
    known_split(name, split)
    stem = "train" if split == "train" else "t10k"
    idx = (f"{stem}-images-idx3-ubyte", f"{stem}-labels-idx1-ubyte")
    forms = (
        Form(idx, f"{idx[0]} and {idx[1]} (also .gz)", _idx_pair),
        Form((f"{idx[0]}.gz", f"{idx[1]}.gz"), "", _idx_pair),
        Form((f"{split}.png", "labels.npz"), f"{split}.png and labels.npz (a mosaic)", lambda paths, _: _mosaic(paths, split)),
        npz_form(f"{name}.npz", split),
    )
    places = ("raw", f"{'MNIST' if name == 'mnist' else 'FashionMNIST'}/raw")
    pictures = read_form(folder, f"{title} {split}", forms, places=places, shape=(1, 28, 28), classes=classes, first=first)
    return Pictures(pictures.images.repeat(1, 3, 1, 1), pictures.labels, classes) if rgb else pictures


def _idx_pair(paths: Sequence[Path], first: int | None) -> Arrays:
    pixels, labels = read_idx(paths[0], 3, first), read_idx(paths[1], 1, first)
    return pixels[:, None], labels


def read_idx(path: Path, dimensions: int, first: int | None = None) -> NDArray[np.uint8]:
    """A uint8 array of an idx file (big-endian header: 0, 0, 8, the number of dimensions, each length), also gzipped.

    Only the `first` entries are read. InputError where the file is another one, ends early, or (read whole) goes on.
    """
    says = f"an idx file of uint8 with {dimensions} dimensions, for example train-images-idx3-ubyte"
    try:
        with cast(IO[bytes], gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb")) as file:
            head = file.read(4 + 4 * dimensions)
            if len(head) < 4 + 4 * dimensions or head[:4] != bytes((0, 0, 8, dimensions)):
                raise InputError(f"{path}: begins with {head[:4].hex()}; {says}")
            shape = struct.unpack(f">{dimensions}I", head[4:])
            rows = shape[0] if first is None else min(first, shape[0])
            size = rows * math.prod(shape[1:])
            if size > MOST:
                raise InputError(f"{path}: {size} bytes of pixels; up to {MOST}, {says}")
            content = file.read(size)
            if len(content) < size or (first is None and file.read(1)):
                raise InputError(
                    f"{path}: {len(content)} bytes for the shape {shape}, {'more follow' if len(content) == size else 'too few'}; {says}"
                )
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: not readable ({error}); {says}") from None
    return np.frombuffer(content, np.uint8).reshape(rows, *shape[1:])


def _mosaic(paths: Sequence[Path], split: str) -> Arrays:
    """Tiles of 28 x 28, row-major, in one grey PNG."""
    labels, a = stored_labels(paths[1], split), np.asarray(open_photo(paths[0], "L"))
    rows, columns = a.shape[0] // 28, a.shape[1] // 28
    if a.shape != (28 * rows, 28 * columns) or rows * columns != len(labels):
        raise InputError(f"{paths[0]}: {a.shape[1]} x {a.shape[0]} pixels for {len(labels)} labels; as many tiles of 28 x 28")
    return a.reshape(rows, 28, columns, 28).transpose(0, 2, 1, 3).reshape(-1, 1, 28, 28), labels
