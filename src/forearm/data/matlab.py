"""Numeric arrays in MATLAB version 5 files (MathWorks, "MAT-File Format", chapter 1), as much of the format as SVHN needs."""

from __future__ import annotations

import math
import struct
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from forearm.errors import InputError

LARGEST = 2 * 2**30  # bytes of one array; SVHN's `extra` has 1.63e9
MATRIX, COMPRESSED = 14, 15
TYPES = {1: "i1", 2: "u1", 3: "i2", 4: "u2", 5: "i4", 6: "u4", 7: "f4", 9: "f8", 12: "i8", 13: "u8"}
NUMERIC = range(6, 16)  # array classes: double, single, and the integers


def read_matlab(path: Path, names: tuple[str, ...]) -> dict[str, NDArray[Any]]:
    """The variables `names` of a `.mat` file (versions 5 to 7, compressed or not), each with its own shape.

    Entries have the type in which they are stored, which may be narrower than the class that MATLAB shows. InputError for another
    format (7.3 is HDF5), for arrays that are not numeric or not real, and where a variable is not there.
    """
    found: dict[str, NDArray[Any]] = {}
    try:
        with path.open("rb") as file:
            order = _byte_order(path, file.read(128))
            while (element := _next_element(file, order)) is not None:
                if names_array := _array(element, order, names):
                    found[names_array[0]] = names_array[1]
                if all(name in found for name in names):
                    return found
    except (OSError, ValueError, struct.error, zlib.error, UnicodeDecodeError, KeyError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: not readable ({error}); a MATLAB 5 file of numeric arrays, for example train_32x32.mat") from None
    missing = ", ".join(name for name in names if name not in found)
    raise InputError(f"{path}: no variable {missing}; {' and '.join(names)}, as in train_32x32.mat")


def _byte_order(path: Path, head: bytes) -> str:
    """The writer's byte order ("<" or ">") from the header: text, then a version and the letters MI."""
    if len(head) == 128 and head[124:128] == b"\x00\x01IM":
        return "<"
    if len(head) == 128 and head[124:128] == b"\x01\x00MI":
        return ">"
    kind = "MATLAB 7.3 (HDF5)" if head[:10] == b"MATLAB 7.3" else f"something that begins with {head[:8].hex()}"
    raise InputError(f"{path}: {kind}; a MATLAB 5 file, for example saved with -v7")


def _next_element(file: IO[bytes], order: str) -> bytes | None:
    """The content of the next matrix, inflated; None at the end of the file."""
    while tag := file.read(8):
        kind, size = struct.unpack(f"{order}2I", tag)
        if size > LARGEST:
            raise ValueError(f"an element of {size} bytes")
        content = file.read(size)
        if len(content) < size:
            raise ValueError("it ends early")
        if kind == MATRIX:
            file.read(-size % 8)
            return content
        if kind == COMPRESSED:
            return _inflate(content, order)
    return None


def _inflate(content: bytes, order: str) -> bytes:
    """A compressed matrix, no further than its own tag says and `LARGEST` allows."""
    inflater = zlib.decompressobj()
    tag = inflater.decompress(content, 8)
    kind, size = struct.unpack(f"{order}2I", tag)
    if kind != MATRIX or size > LARGEST:
        raise ValueError(f"a compressed element of type {kind} and {size} bytes")
    matrix = inflater.decompress(inflater.unconsumed_tail, size) if size else b""
    if len(matrix) < size:
        raise ValueError("a compressed matrix that ends early")
    return matrix


def _parts(matrix: bytes, order: str) -> list[tuple[int, memoryview]]:
    """The first four sub-elements of a matrix, type and content. Short ones (up to 4 bytes) lie inside their tag."""
    view, at = memoryview(matrix), 0
    parts: list[tuple[int, memoryview]] = []
    while at + 8 <= len(view) and len(parts) < 4:
        kind, size = struct.unpack_from(f"{order}2I", view, at)
        start = at + 8
        if kind >> 16:
            kind, size, start = kind & 0xFFFF, kind >> 16, at + 4
        if start + size > len(view):
            raise ValueError("a part that is longer than its matrix")
        parts.append((kind, view[start : start + size]))
        at = start + size + (-(start + size) % 8)
    return parts


def _array(matrix: bytes, order: str, names: tuple[str, ...]) -> tuple[str, NDArray[Any]] | None:
    """Name and content of a matrix: flags, dimensions, name, entries in column-major order. None where it is not asked for."""
    parts = _parts(matrix, order)
    if len(parts) < 4:
        return None
    flags, dimensions, name, entries = parts
    called = bytes(name[1]).decode("ascii")
    if called not in names:
        return None
    (word,) = struct.unpack_from(f"{order}I", flags[1])
    if word & 0xFF not in NUMERIC or word & 0x0800 or entries[0] not in TYPES:
        raise ValueError(f"{called} is not a real array of numbers")
    shape = tuple(int(side) for side in np.frombuffer(dimensions[1], f"{order}i4"))
    content = np.frombuffer(entries[1], f"{order}{TYPES[entries[0]]}")
    if min(shape, default=-1) < 0 or math.prod(shape) != len(content):
        raise ValueError(f"{called} has {len(content)} entries for the shape {shape}")
    return called, content.reshape(shape, order="F")
