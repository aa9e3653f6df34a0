"""Pickles byte by byte: CIFAR's as Python 2 wrote them, and hostile ones."""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray


def text(value: str) -> bytes:
    """A Python 2 string: SHORT_BINSTRING."""
    return b"U" + bytes([len(value)]) + value.encode()


def numbers(values: list[int]) -> bytes:
    """A list of small whole numbers, as cPickle wrote it."""
    return b"](" + b"".join(b"K" + bytes([value]) for value in values) + b"e"


def array(pixels: NDArray[np.uint8], code: bytes = b"u1", module: bytes = b"numpy.core.multiarray") -> bytes:
    """A two-dimensional array: _reconstruct(ndarray, (0,), 'b'), then its state."""
    blank = b"c" + module + b"\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    dtype = b"cnumpy\ndtype\nU\x02" + code + b"K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    n, m = pixels.shape
    shape = b"J" + struct.pack("<i", n) + b"J" + struct.pack("<i", m) + b"\x86"
    raw = b"T" + struct.pack("<i", pixels.size) + pixels.tobytes()
    return blank + b"(K\x01" + shape + dtype + b"\x89" + raw + b"tb"


def batch(pixels: NDArray[np.uint8], labels: list[int], key: str = "labels") -> bytes:
    """A whole batch: batch_label, the labels, data, filenames; with the memo entries that the originals have."""
    parts = [(text("batch_label"), text("testing batch 1 of 1")), (text(key), numbers(labels)), (text("data"), array(pixels))]
    parts.append((text("filenames"), b"](" + b"".join(text(f"{i}.png") for i in range(len(labels))) + b"e"))
    return b"\x80\x02}q\x01(" + b"".join(k + b"q" + bytes([2 + i]) + v for i, (k, v) in enumerate(parts)) + b"u."
