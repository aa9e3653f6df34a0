"""The formats that can be armed, told apart by content, and how a source is opened."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from forearm.errors import InputError
from forearm.images import bmp, jpeg, png, tiff, webp
from forearm.images.limits import Limits
from forearm.images.picture import Picture, Pixels, Plane


@dataclass(frozen=True, slots=True)
class Format:
    """One file format."""

    name: str
    starts: tuple[bytes, ...]
    extensions: tuple[str, ...]
    read: Callable[[bytes, Limits], Picture]
    write: Callable[[Picture, Pixels, Plane | None, str | None], bytes]
    notes: Callable[[bytes, Limits], list[str]]


FORMATS = {
    form.name: form
    for form in (
        Format("JPEG", (b"\xff\xd8\xff",), (".jpg", ".jpeg", ".jpe", ".jfif"), jpeg.read, jpeg.write, jpeg.notes),
        Format("PNG", (png.MAGIC,), (".png",), png.read, png.write, png.notes),
        Format("WEBP", (b"RIFF",), (".webp",), webp.read, webp.write, webp.notes),
        Format("BMP", (b"BM",), (".bmp", ".dib"), bmp.read, bmp.write, bmp.notes),
        Format("TIFF", (b"II*\0", b"MM\0*"), (".tif", ".tiff"), tiff.read, tiff.write, tiff.notes),
    )
}
OTHERS = (
    (0, b"GIF8", "a GIF"),
    (0, b"II+\0", "a BigTIFF"),
    (0, b"MM\0+", "a BigTIFF"),
    (4, b"ftypavi", "an AVIF"),
    (4, b"ftyphe", "a HEIC"),
    (4, b"ftypmi", "a HEIC"),
    (4, b"ftypms", "a HEIC"),
    (4, b"ftyp", "a film or a HEIC"),
    (0, b"8BPS", "a Photoshop file"),
    (0, b"\0\0\1\0", "an icon"),
    (0, b"\0\0\0\x0cjP  ", "a JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "a JPEG 2000"),
    (0, b"\0\0\0\x0cJXL ", "a JPEG XL"),
    (0, b"\xff\x0a", "a JPEG XL"),
    (0, b"\x76\x2f\x31\x01", "an OpenEXR (HDR)"),
    (0, b"#?RADIANCE", "a Radiance (HDR)"),
    (0, b"%PDF", "a PDF"),
    (0, b"<svg", "an SVG"),
    (0, b"<?xml", "an SVG or another XML file"),
    (0, b"<!", "an HTML page"),
    (0, b"<html", "an HTML page"),
    (0, b"PK\3\4", "a ZIP archive"),
)
ACCEPTED = "JPEG, PNG, WebP, BMP or TIFF of 8 bits a channel, for example photo.jpg"


def format_of(data: bytes) -> Format:
    """The format by its first bytes; anything else is refused by its name where that is known (InputError)."""
    for form in FORMATS.values():
        if data.startswith(form.starts) and (form.name != "WEBP" or data[8:12] == b"WEBP"):
            return form
    if not data:
        raise InputError(f"an empty file; {ACCEPTED}")
    for at, start, kind in OTHERS:
        if data.startswith(start, at):
            raise InputError(f"{kind}; {ACCEPTED}")
    raise InputError(f"no picture format that can be armed; {ACCEPTED}")


def where(source: Path | bytes) -> str:
    """How a source is named in messages: on one line, whatever its name holds."""
    if isinstance(source, bytes):
        return f"picture of {len(source)} bytes"
    name = os.fspath(source)
    return name if name.isprintable() else ascii(name)


def content(source: Path | bytes, limits: Limits) -> bytes:
    """The bytes of a regular file, or those given; links are followed.

    Pipes, devices and folders are refused without waiting for them (InputError).
    """
    if isinstance(source, bytes):
        return _bounded(source, len(source), limits)
    try:
        handle = os.open(source, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            status = os.fstat(handle)
            if not stat.S_ISREG(status.st_mode):
                raise InputError("a folder, pipe or device; a regular file, for example photo.jpg")
            data = b"" if status.st_size > limits.max_bytes else _read(handle, limits.max_bytes + 1)
        finally:
            os.close(handle)
    except OSError as error:
        raise InputError(f"not readable ({error.strerror}); a regular file, for example photo.jpg") from None
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError("no possible file name; a path, for example photo.jpg") from None
    return _bounded(data, status.st_size, limits)


def _bounded(data: bytes, size: int, limits: Limits) -> bytes:
    if max(size, len(data)) > limits.max_bytes:
        raise InputError(f"{max(size, len(data))} bytes; up to {limits.max_bytes}, for example a photo of 5 MB")
    return data


def _read(handle: int, most: int) -> bytes:
    pieces: list[bytes] = []
    while most > 0 and (piece := os.read(handle, min(most, 2**22))):
        pieces.append(piece)
        most -= len(piece)
    return b"".join(pieces)
