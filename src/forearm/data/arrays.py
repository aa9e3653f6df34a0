"""Arrays in `.npz` files: any data set that somebody has as numbers."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forearm.data.batches import Pictures
from forearm.data.folder import given_path
from forearm.data.forms import Arrays, Form, known_first, known_split, labelled
from forearm.data.photos import MOST
from forearm.errors import InputError


def npz(folder: Path, split: str, *, path: str = "", first: int | None = None) -> Pictures:
    """Pictures from arrays: `path` names the file, for example "npz(path='mine.npz')", or a folder with `train.npz` and `test.npz`.

    The file holds `x_train`, `y_train`, `x_test`, `y_test`, or plain `x` and `y` (then it is the `test` split, or the split that it is
    named after): x uint8 `n h w c`, `n c h w` or `n h w` with 1 or 3 channels, y whole numbers from 0, and optionally `classes`, their
    names. Nothing in it is unpickled. InputError where anything else is found.
    """
    known_split("npz", split)
    known_first(first)
    where = given_path(folder, path)
    file = where / f"{split}.npz" if where.is_dir() else where
    pixels, labels, classes = read_npz(file, split, named=where.is_dir())
    return labelled(file, pixels, labels, classes, first)


def stored_labels(file: Path, split: str) -> NDArray[np.integer]:
    """The array `y_train` or `y_test` of the `labels.npz` beside mosaics. InputError where it has none."""
    try:
        with np.load(file, allow_pickle=False) as z:
            labels: NDArray[np.integer] = z[f"y_{split}"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: no labels to read ({' '.join(str(error).split())[:120]}); the arrays y_train and y_test") from None
    return labels


def npz_form(name: str, split: str) -> Form:
    """The form of a known data set that is one `.npz` file of `x_train`, `y_train`, `x_test`, `y_test`."""
    return Form((name,), f"{name} with x_{split} and y_{split}", lambda paths, _: _pair(paths[0], split))


def _pair(file: Path, split: str) -> Arrays:
    pixels, labels, _ = read_npz(file, split, named=False)
    return pixels, labels


def read_npz(file: Path, split: str, *, named: bool) -> tuple[NDArray[np.uint8], NDArray[np.integer], tuple[str, ...]]:
    """Pixels `n c h w`, labels and class names (numbers where the file has none) of one split; `named`: the file itself is that split."""
    try:
        with zipfile.ZipFile(file) as parts:
            total = sum(part.file_size for part in parts.infolist())
        if total > MOST:
            raise InputError(f"{file}: {total} bytes of arrays; up to {MOST}, for example in several files")
        with np.load(file, allow_pickle=False) as z:
            keys = next((pair for pair in _pairs(split, named) if set(pair) <= set(z.files)), None)
            if keys is None:
                raise InputError(
                    f"{file}: the arrays {', '.join(z.files) or 'none'}; x_{split} and y_{split}, or x and y of the test split"
                )
            x, y = z[keys[0]], z[keys[1]]
            names = tuple(str(name) for name in z["classes"].reshape(-1)) if "classes" in z.files else _numbered(z)
    except (OSError, ValueError, MemoryError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        if isinstance(error, InputError):
            raise
        why = " ".join(str(error).split())[:120]
        raise InputError(
            f"{file}: cannot be read as arrays ({why}); a .npz of numbers, for example np.savez('mine.npz', x=x, y=y)"
        ) from None
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    return channels_first(file, x), y, names


def _numbered(z: Mapping[str, NDArray[np.integer]]) -> tuple[str, ...]:
    """Names for the classes up to the highest label of any split: "0", "1", ..."""
    highest = [int(z[key].max()) for key in ("y", "y_train", "y_test") if key in z and z[key].size]
    return tuple(str(i) for i in range(max(highest, default=-1) + 1))


def _pairs(split: str, named: bool) -> list[tuple[str, str]]:
    return [(f"x_{split}", f"y_{split}"), *([("x", "y")] if named or split == "test" else [])]


def channels_first(file: Path, x: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """uint8 pictures in any of the usual layouts as `n c h w`. InputError for other types, and where the layout is not certain."""
    if x.dtype != np.uint8 or x.ndim not in (3, 4):
        raise InputError(f"{file}: pictures {x.dtype} of shape {x.shape}; uint8 from 0 to 255, for example n x 32 x 32 x 3")
    if x.ndim == 3:
        return x[:, None]
    before, after = x.shape[1] in (1, 3), x.shape[3] in (1, 3)
    if before == after:
        raise InputError(f"{file}: pictures of shape {x.shape}; 1 or 3 channels, first or last, for example n x 32 x 32 x 3")
    return x if before else x.transpose(0, 3, 1, 2)
