"""Arm one picture from a stream: bytes in, bytes out, no folder and no journal."""

from __future__ import annotations

import hashlib
import time
from dataclasses import replace

from forearm.errors import InputError
from forearm.images.codec import decode
from forearm.images.journal import Line
from forearm.images.limits import LIMITS, Limits
from forearm.images.provenance import tag_of
from forearm.jobs.arm import Armourer
from forearm.jobs.lines import armed_line, key_of, tag_for
from forearm.jobs.workers import Refused, Save, save


def protect_bytes(
    data: bytes,
    armourer: Armourer,
    *,
    label: str | None = None,
    tag: bool = True,
    again: bool = False,
    limits: Limits = LIMITS,
    name: str = "-",
) -> tuple[bytes, Line]:
    """The armed file and its journal line; the same bytes that the folder job would write.

    InputError for what is no picture, beyond `limits`, or armed already (unless `again`); SpecError for an unknown
    label.
    """
    started = time.perf_counter()
    picture = decode(data, limits)
    if tag_of(data, limits) is not None and not again:
        raise InputError(f"{name}: a picture that is already armed; an original, or --again to arm it once more")
    height, width = picture.pixels.shape[:2]
    index = None if label is None else armourer.class_index(label, height, width)
    settings = armourer.settings(height, width)
    armed = armourer.arm([picture.pixels], [index])[0]
    saved = save(Save(replace(picture, pixels=armed.pixels), tag_for(settings) if tag else None, limits))
    if isinstance(saved, Refused):
        raise InputError(f"{name}: {saved.reason}; a picture that can be written back, for example a PNG")
    sha256 = hashlib.sha256(data).hexdigest()
    line = Line(
        name,
        sha256,
        "armed",
        "; ".join(picture.warnings),
        out="-",
        key=key_of(sha256, settings, index, tag),
        format=picture.format,
        width=width,
        height=height,
    )
    return saved.data, armed_line(line, armed, picture.pixels, saved, armourer, time.perf_counter() - started)
