"""SVHN, house numbers in cropped digits (Netzer et al., 2011), from the published MATLAB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from forearm.data.batches import Pictures
from forearm.data.forms import Arrays, Form, known_split, read_form
from forearm.data.matlab import read_matlab
from forearm.errors import InputError

DIGITS = tuple("0123456789")


def svhn(folder: Path, split: str, *, first: int | None = None) -> Pictures:
    """The 73,257 `train`, 26,032 `test` or 531,131 `extra` digits, `n 3 32 32`; the `first` so many.

    The files write the digit 0 as label 10; here it is 0. A file is read whole, whatever `first` is.
    """
    known_split("svhn", split, ("train", "test", "extra"))
    name = f"{split}_32x32.mat"
    form = Form((name,), f"{name} (format 2, cropped digits)", lambda paths, _: _cropped(paths[0]))
    return read_form(folder, f"SVHN {split}", (form,), shape=(3, 32, 32), classes=DIGITS, first=first)


def _cropped(path: Path) -> Arrays:
    """`X` uint8 `32 32 3 n` and `y` with a digit from 1 to 10 each."""
    variables = read_matlab(path, ("X", "y"))
    x, y = variables["X"], variables["y"].reshape(-1)
    if x.dtype != np.uint8 or x.ndim != 4 or x.shape[:3] != (32, 32, 3):
        raise InputError(f"{path}: X is {x.dtype} of shape {x.shape}; uint8, 32 x 32 x 3 x n")
    labels = y.astype(np.int64)
    if len(y) != x.shape[3] or not np.array_equal(labels, y) or (len(y) and (labels.min() < 0 or labels.max() > 10)):
        raise InputError(f"{path}: y has {len(y)} entries for {x.shape[3]} pictures; one digit each, from 1 to 10 (the digit 0)")
    return x.transpose(3, 2, 0, 1), labels % 10
