"""The tag that says a file is armed: what kind of defence, against which threat, with which backbone.

Never the seed, which would help to undo it.

Where it lies: PNG an iTXt chunk "forearm"; JPEG a comment of its own after any other; WebP a chunk "4ARM" of its own;
TIFF the private tag 65042. BMP has no place for it: an armed BMP cannot be told from another. The tag is a notice, not
a proof: anyone can write or remove it.
"""

from __future__ import annotations

import json
import math
from importlib.metadata import version
from pathlib import Path

from forearm.errors import InputError, SpecError
from forearm.images.formats import content, format_of
from forearm.images.limits import LIMITS, Limits

Tag = dict[str, str | int | float]
MAX_TEXT = 4096


def armed_tag(defense: str, threat: str, backbone: str) -> Tag:
    """The tag of a file armed by this version."""
    return {"forearm": version("forearm"), "defense": defense, "threat": threat, "backbone": backbone}


def render(tag: Tag) -> str:
    """The tag as ASCII JSON of at most 4096 characters.

    SpecError for a longer one, a seed, or values that are neither text nor finite numbers.
    """
    if "seed" in tag:
        raise SpecError("tag: got the seed; anything but the seed, for example the defense")
    if "forearm" not in tag or not all(map(_plain, tag.values())):
        raise SpecError(
            f"tag: got {sorted(tag)}; texts and finite numbers, the version under 'forearm', for example {{'forearm': '0.1.0'}}"
        )
    text = json.dumps(tag, ensure_ascii=True, separators=(",", ":"))
    if len(text) > MAX_TEXT:
        raise SpecError(f"tag: got {len(text)} characters of JSON; up to {MAX_TEXT}, for example 200")
    return text


def parse(text: str) -> Tag | None:
    """The tag in `text`; None for anything that `render` would not have written."""
    if len(text) > MAX_TEXT:
        return None
    try:
        tag = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(tag, dict) or "forearm" not in tag or not all(map(_plain, tag.values())):
        return None
    return tag


def _plain(value: object) -> bool:
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))


def tag_of(source: Path | bytes, limits: Limits = LIMITS) -> Tag | None:
    """The tag of a file; None where there is none, where it is damaged, and for files that cannot be read or are no
    pictures. Decodes no pixels.
    """
    try:
        data = content(source, limits)
        texts = format_of(data).notes(data, limits)
    except InputError:
        return None
    return next((tag for tag in map(parse, reversed(texts)) if tag is not None), None)
