"""Zip archives: honest ones, and those that must be refused whole."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
from collections.abc import Callable
from typing import Any

from tests.images.corpus import bomb, sound


def packed(*files: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """A zip of these files."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in files:
            archive.writestr(name, data, compress_type=method)
    return out.getvalue()


def entry(name: str, **values: Any) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    for field, value in values.items():
        setattr(info, field, value)
    return info


def encrypted() -> bytes:
    data = bytearray(packed(("a.png", b"x")))
    data[6] |= 1
    data[data.index(b"PK\x01\x02") + 8] |= 1
    return bytes(data)


def renamed(name: bytes) -> bytes:
    """An archive whose one name was changed afterwards, so that no writer could tidy it up."""
    return packed(("n" * len(name), b"x")).replace(b"n" * len(name), name)


def overlapping() -> bytes:
    """Many members that point at the same bytes (D. Fifield, "A better zip bomb", 2019)."""
    kernel = packed(*((f"{n}.png", bomb(2**20)) for n in range(8)), method=zipfile.ZIP_STORED)
    start = kernel.index(b"PK\x01\x02")
    directory, end = bytearray(kernel[start:-22]), bytearray(kernel[-22:])
    at = 0
    for _ in range(8):
        directory[at + 42 : at + 46] = struct.pack("<I", 0)
        at += 46 + struct.unpack("<H", directory[at + 28 : at + 30])[0]
    local = kernel[: start // 8]
    end[16:20] = struct.pack("<I", len(local))
    return local + bytes(directory) + bytes(end)


LINK = (stat.S_IFLNK | 0o777) << 16
HOSTILE: dict[str, tuple[Callable[[], bytes], str]] = {
    "up": (lambda: packed(("../a.png", b"x")), "lead out"),
    "up inside": (lambda: packed(("a/../../b.png", b"x")), "lead out"),
    "absolute": (lambda: packed(("/etc/a.png", b"x")), "lead out"),
    "drive": (lambda: packed(("C:/a.png", b"x")), "lead out"),
    "backslash": (lambda: renamed(b"..\\a.png"), "lead out"),
    "nul": (lambda: renamed(b"a.png\0.txt"), "lead out"),
    "newline": (lambda: packed(("a\n.png", b"x")), "lead out"),
    "turned": (lambda: packed(("a\u202egnp.exe", b"x")), "lead out"),
    "dot": (lambda: packed(("./a.png", b"x")), "lead out"),
    "double slash": (lambda: packed(("a//b.png", b"x")), "lead out"),
    "long": (lambda: packed(("a" * 2000 + ".png", b"x")), "lead out"),
    "link": (lambda: packed((entry("a.png", external_attr=LINK), b"/etc/passwd")), "a link"),
    "device": (lambda: packed((entry("a.png", external_attr=stat.S_IFCHR << 16), b"")), "a link or a device"),
    "encrypted": (encrypted, "encrypted"),
    "bzip2": (lambda: packed(("a.png", b"x"), method=zipfile.ZIP_BZIP2), "method 12"),
    "lzma": (lambda: packed(("a.png", b"x"), method=zipfile.ZIP_LZMA), "method 14"),
    "case": (lambda: packed(("a.png", b"x"), ("A.PNG", b"x")), "two members"),
    "accents": (lambda: packed(("\u00e9.png", b"x"), ("e\u0301.png", b"x")), "two members"),
    "folder and file": (lambda: packed(("a.png", b"x"), ("a.png/", b"")), "two members"),
    "many": (lambda: packed(*((f"{n}.png", b"") for n in range(21))), "21 members"),
    "bomb": (lambda: packed(("a.png", bytes(2**26)), ("b.png", b"x")), "unpacked"),
    "overlapping": (overlapping, "overlap"),
    "no zip": (lambda: b"PK\3\4" + bytes(100), "no whole zip"),
    "picture": (lambda: sound("PNG"), "no whole zip"),
    "nothing": (lambda: b"", "no whole zip"),
    "cut": (lambda: packed(("a.png", sound("PNG")))[:-30], "no whole zip"),
    "empty": (lambda: packed(), "no files"),
    "folders": (lambda: packed(("a/", b"")), "no files"),
}  # fmt: skip
