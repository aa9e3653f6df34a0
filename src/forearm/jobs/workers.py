"""What the worker processes do: decode and encode one file. Nothing here imports torch, so that they start fast."""

from __future__ import annotations

import hashlib
import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from forearm.errors import InputError
from forearm.images.codec import decode, encode, readback
from forearm.images.folder import open_regular
from forearm.images.formats import FORMATS
from forearm.images.limits import Limits
from forearm.images.picture import Picture, Pixels
from forearm.images.provenance import Tag, tag_of


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that cannot be armed, and why."""

    reason: str


@dataclass(frozen=True, slots=True)
class Load:
    """Read one file. `sha256`: what the plan read. `bare`: without its pixels, to look before the work."""

    path: Path
    sha256: str
    limits: Limits
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Loaded:
    """A file as read. `shape`: of the upright pixels; `picture`: None if bare; `tag`: what an earlier arming left."""

    shape: tuple[int, ...]
    picture: Picture | None
    tag: Tag | None
    mode: int  # permission bits
    seconds: float


@dataclass(frozen=True, slots=True)
class Save:
    """Encode `picture`, whose pixels are the armed ones."""

    picture: Picture
    tag: Tag | None
    limits: Limits


@dataclass(frozen=True, slots=True)
class Saved:
    """An encoded file, and its pixels where they differ from those it was made of."""

    data: bytes
    sha256: str
    pixels: Pixels | None
    seconds: float


def load(request: Load) -> Loaded | Refused:
    """Read and decode one file within its limits. Whatever is wrong with it comes back as the reason."""
    started = time.perf_counter()
    try:
        with open_regular(request.path) as file:
            mode = os.fstat(file.fileno()).st_mode & 0o777
            data = file.read(request.limits.max_bytes + 1)
        if len(data) <= request.limits.max_bytes and hashlib.sha256(data).hexdigest() != request.sha256:
            return Refused("changed while the job ran; run the same command again")
        picture = named(decode(data, request.limits), request.path)
        tag = tag_of(data, request.limits)
    except Exception as error:  # a hostile file may raise anything; it costs one line
        return Refused(cause(error))
    return Loaded(picture.pixels.shape, None if request.bare else picture, tag, mode, time.perf_counter() - started)


def save(request: Save) -> Saved | Refused:
    """Encode, read back and compare: a lossless file must hold the armed pixels exactly."""
    started = time.perf_counter()
    armed = request.picture.pixels
    try:
        data = encode(request.picture, armed, request.tag)
        limits = replace(request.limits, max_bytes=max(request.limits.max_bytes, len(data)))
        back = readback(data, armed, limits).pixels
    except Exception as error:  # an encoder that gives up costs one line
        return Refused(cause(error))
    alike = back.shape == armed.shape and np.array_equal(back, armed)
    if request.picture.lossless and not alike:
        return Refused("the written file does not read back as the armed pixels")
    if back.shape != armed.shape:
        return Refused(f"the written file reads back as {back.shape}, not {armed.shape}")
    return Saved(data, hashlib.sha256(data).hexdigest(), None if alike else back, time.perf_counter() - started)


def named(picture: Picture, path: Path) -> Picture:
    """`picture` with a warning if `path` is called after another format."""
    form = FORMATS[picture.format]
    if path.suffix.lower() in form.extensions:
        return picture
    return replace(picture, warnings=(*picture.warnings, f"not called after its format, {form.name}"))


def cause(error: BaseException) -> str:
    """Why an error happened, in one line; for what the project raises on purpose its message alone."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, InputError) and text else f"{type(error).__name__}: {text}".rstrip(": ")
