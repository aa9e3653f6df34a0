"""Arrays in `.npz` files."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from forearm.data import sets
from forearm.data.arrays import read_npz
from forearm.errors import InputError

X = np.random.default_rng(0).integers(0, 256, (5, 6, 7, 3), dtype=np.uint8)
Y = np.array([2, 0, 1, 2, 0])


@pytest.mark.parametrize("layout", ["last", "first", "grey", "grey last", "column of labels"])
def test_the_usual_layouts(layout: str, tmp_path: Path) -> None:
    x = {"first": X.transpose(0, 3, 1, 2), "grey": X[..., 0], "grey last": X[..., :1]}.get(layout, X)
    np.savez(tmp_path / "mine.npz", x=x, y=Y[:, None] if layout == "column of labels" else Y)
    pictures = sets.load("npz(path='mine.npz')", "test", tmp_path)
    expected = X.transpose(0, 3, 1, 2)[:, :1] if "grey" in layout else X.transpose(0, 3, 1, 2)
    assert torch.equal(pictures.images, torch.from_numpy(np.ascontiguousarray(expected)))
    assert pictures.labels.tolist() == Y.tolist()
    assert pictures.classes == ("0", "1", "2")
    first = sets.load("npz(path='mine.npz')", "test", tmp_path, first=2)
    assert torch.equal(first.images, pictures.images[:2])
    assert first.classes == pictures.classes


def test_splits_and_names(tmp_path: Path) -> None:
    np.savez(tmp_path / "both.npz", x_train=X, y_train=Y, x_test=X[:2], y_test=Y[:2], classes=["ant", "bee", "cat", "dog"])
    spec = f"npz(path={str(tmp_path / 'both.npz')!r})"
    assert [len(sets.load(spec, split)) for split in ("train", "test")] == [5, 2]
    assert sets.load(spec, "test").classes == ("ant", "bee", "cat", "dog")
    np.savez(tmp_path / "few.npz", x_train=X, y_train=Y, x_test=X[:2], y_test=Y[1:3])
    assert [sets.load("npz(path='few.npz')", split, tmp_path).classes for split in ("train", "test")] == [("0", "1", "2")] * 2
    np.savez(tmp_path / "train.npz", x=X, y=Y)
    assert len(sets.load("npz", "train", tmp_path)) == 5
    with pytest.raises(InputError, match=r"test\.npz: cannot be read"):
        sets.load("npz", "test", tmp_path)
    np.savez(tmp_path / "plain.npz", x=X, y=Y)
    with pytest.raises(InputError, match="the arrays x, y; x_train and y_train"):
        sets.load("npz(path='plain.npz')", "train", tmp_path)


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({"x": X}, "the arrays x; x_test and y_test, or x and y"),
        ({"x": X / 255.0, "y": Y}, "pictures float64"),
        ({"x": X[0], "y": Y[:1]}, "6 pictures, labels|pictures of shape|shape"),
        ({"x": X[..., :2], "y": Y}, "1 or 3 channels"),
        ({"x": X[:, :3], "y": Y}, "1 or 3 channels"),
        ({"x": X, "y": Y[:4]}, r"5 pictures, labels of shape \(4,\)"),
        ({"x": X, "y": Y + 0.5}, "one whole number a picture"),
        ({"x": X, "y": Y - 1}, "labels from -1 to 1"),
        ({"x": X, "y": Y, "classes": ["a", "b"]}, "labels from 0 to 2; 0 to 1"),
    ],
)
def test_other_arrays_are_refused(arrays: dict[str, Any], why: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "mine.npz", **arrays)
    with pytest.raises(InputError, match=why) as caught:
        sets.load("npz(path='mine.npz')", "test", tmp_path)
    assert "\n" not in str(caught.value)


class Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (Path("made by a pickle"),)


def test_objects_are_not_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", x=X, y=np.array([Runs()] * 5, object))
    with pytest.raises(InputError, match="cannot be read as arrays"):
        sets.load("npz(path='mine.npz')", "test")
    assert not Path("made by a pickle").exists()
    assert len(np.load("mine.npz", allow_pickle=True)["x"]) == 5
    np.load("mine.npz", allow_pickle=True)["y"]
    assert Path("made by a pickle").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 nothing", b"\x93NUMPY\x01\x00"])
def test_files_that_are_no_arrays_are_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "mine.npz").write_bytes(content)
    with pytest.raises(InputError, match="cannot be read as arrays") as caught:
        read_npz(tmp_path / "mine.npz", "test", named=False)
    assert "\n" not in str(caught.value)


def test_a_header_that_claims_too_much_is_refused(tmp_path: Path) -> None:
    head = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776, 6, 7, 3), }".ljust(117) + b"\n"
    with zipfile.ZipFile(tmp_path / "mine.npz", "w") as parts:
        parts.writestr("x.npy", b"\x93NUMPY\x01\x00" + len(head).to_bytes(2, "little") + head + bytes(100))
        parts.writestr("y.npy", b"")
    with pytest.raises(InputError, match="cannot be read as arrays"):
        sets.load("npz(path='mine.npz')", "test", tmp_path)
