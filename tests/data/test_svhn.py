"""SVHN and the MATLAB files that it comes in, written here as the format's description says."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from forearm.data.matlab import read_matlab
from forearm.data.svhn import svhn
from forearm.errors import InputError

CODES = {"i1": 1, "u1": 2, "i2": 3, "u2": 4, "i4": 5, "u4": 6, "f4": 7, "f8": 9, "i8": 12, "u8": 13}


def part(kind: int, content: bytes, order: str = "<", short: bool = True) -> bytes:
    """One sub-element; up to 4 bytes go inside the tag, as MATLAB writes them."""
    if short and 0 < len(content) <= 4:
        return struct.pack(f"{order}I", len(content) << 16 | kind) + content.ljust(4, b"\0")
    return struct.pack(f"{order}2I", kind, len(content)) + content + b"\0" * (-len(content) % 8)


def matrix(name: str, a: NDArray[np.generic], order: str = "<", packed: bool = False, kind: int = 9, flags: int = 0) -> bytes:
    """A whole numeric matrix, column-major."""
    body = part(6, struct.pack(f"{order}2I", kind | flags, 0), order)
    body += part(5, np.array(a.shape, f"{order}i4").tobytes(), order)
    body += part(1, name.encode(), order)
    body += part(CODES[a.dtype.str[1:]], a.astype(a.dtype.newbyteorder(order)).tobytes(order="F"), order)
    whole = struct.pack(f"{order}2I", 14, len(body)) + body
    if not packed:
        return whole
    squeezed = zlib.compress(whole)
    return struct.pack(f"{order}2I", 15, len(squeezed)) + squeezed


def mat(*elements: bytes, order: str = "<") -> bytes:
    head = b"MATLAB 5.0 MAT-file, Platform: GLNXA64".ljust(116) + bytes(8)
    return head + (b"\x00\x01IM" if order == "<" else b"\x01\x00MI") + b"".join(elements)


def drawn(n: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """X `32 32 3 n` and y `n 1`, digits from 1 to 10."""
    numbers = np.random.default_rng(0)
    return numbers.integers(0, 256, (32, 32, 3, n), dtype=np.uint8), (np.arange(n, dtype=np.uint8) % 10 + 1)[:, None]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "f8"])
def test_the_digits_and_ten_is_zero(packed: bool, order: str, dtype: str, tmp_path: Path) -> None:
    x, y = drawn(11)
    elements = matrix("X", x, order, packed), matrix("y", y.astype(dtype), order, packed, kind=9 if dtype == "u1" else 6)
    (tmp_path / "train_32x32.mat").write_bytes(mat(*elements, order=order))
    pictures = svhn(tmp_path, "train")
    assert torch.equal(pictures.images[4, 2], torch.from_numpy(np.ascontiguousarray(x[:, :, 2, 4])))
    assert torch.equal(pictures.images, torch.from_numpy(np.ascontiguousarray(x.transpose(3, 2, 0, 1))))
    assert pictures.labels.tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert pictures.classes[0] == "0"
    assert torch.equal(svhn(tmp_path, "train", first=3).images, pictures.images[:3])
    assert len(svhn(tmp_path, "train", first=0)) == 0


def test_other_variables_are_passed_over(tmp_path: Path) -> None:
    x, y = drawn(2)
    file = tmp_path / "a.mat"
    file.write_bytes(
        mat(matrix("note", np.array([[1.5]])), struct.pack("<2I", 1, 8) + b"whatever", matrix("y", y), matrix("X", x, packed=True))
    )
    found = read_matlab(file, ("X", "y"))
    assert np.array_equal(found["X"], x)
    assert np.array_equal(found["y"], y)
    assert read_matlab(file, ("note",))["note"].tolist() == [[1.5]]


def truncated() -> bytes:
    return mat(matrix("y", drawn(2)[1], packed=True))[:-4]


def bomb(size: int) -> bytes:
    """A compressed matrix that claims `size` bytes and inflates to many more."""
    squeezed = zlib.compress(struct.pack("<2I", 14, size) + bytes(10_000_000))
    return mat(struct.pack("<2I", 15, len(squeezed)) + squeezed)


X, Y = drawn(2)
THREE = (b"\x02\0\0\0\x01\0\x01\0X", b"\x03\0\0\0\x01\0\x01\0X")  # the last length and the name: three pictures instead of two
WRONG = {
    "nothing": (b"", "begins with"),
    "a new format": (b"MATLAB 7.3 MAT-file".ljust(128), r"MATLAB 7\.3 \(HDF5\)"),
    "no variables": (mat(), "no variable X, y"),
    "one variable": (mat(matrix("X", X)), "no variable y"),
    "an early end": (truncated(), "not readable"),
    "an early end inside": (mat(struct.pack("<2I", 14, 800)), "ends early"),
    "a size beyond all bounds": (bomb(2**32 - 8), "4294967288 bytes"),
    "a matrix of zeros": (bomb(1_000_000), "no variable|not readable"),
    "a cell array": (mat(matrix("X", X, kind=1), matrix("y", Y)), "X is not a real array"),
    "complex numbers": (mat(matrix("X", X, flags=0x0800), matrix("y", Y)), "X is not a real array"),
    "entries that do not fill the shape": (mat(matrix("X", X).replace(*THREE), matrix("y", Y)), "for the shape"),
    "another size": (mat(matrix("X", X[:16]), matrix("y", Y)), "X is uint8 of shape"),
    "floats": (mat(matrix("X", X.astype("f8"), kind=6), matrix("y", Y)), "X is float64"),
    "other digits": (mat(matrix("X", X), matrix("y", Y + 10)), "from 1 to 10"),
    "half digits": (mat(matrix("X", X), matrix("y", Y + 0.5, kind=6)), "from 1 to 10"),
    "fewer digits": (mat(matrix("X", X), matrix("y", Y[:1])), "1 entries for 2 pictures"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "why"), WRONG.values(), ids=list(WRONG))
def test_other_files_are_refused_in_one_line(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "test_32x32.mat").write_bytes(content)
    with pytest.raises(InputError, match=why) as caught:
        svhn(tmp_path, "test")
    assert "\n" not in str(caught.value)


def test_what_is_expected_is_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no SVHN extra files; extra_32x32\.mat"):
        svhn(tmp_path, "extra")
