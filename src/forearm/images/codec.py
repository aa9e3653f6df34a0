"""Picture files in and out: same format, size, mode, orientation and metadata; nothing is converted in silence."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from forearm.errors import InputError
from forearm.images.formats import FORMATS, content, format_of, where
from forearm.images.limits import LIMITS, Limits
from forearm.images.picture import Picture, Pixels, stored
from forearm.images.provenance import Tag, render

__all__ = ["Picture", "Pixels", "Readback", "decode", "encode", "readback"]


@dataclass(frozen=True, slots=True)
class Readback:
    """What a written file holds.

    `linf` is the largest difference to what was asked for, in levels of 1/255: 0 for a lossless format.
    """

    pixels: Pixels
    linf: int


def decode(source: Path | bytes, limits: Limits = LIMITS) -> Picture:
    """The upright pixels of a picture file and all that is needed to write its like.

    The format is told by the content; a name that says otherwise is reported in `warnings`. Only regular files are
    opened. Sizes are checked on the header before anything is decoded, and the decoder sees no metadata. InputError, on
    one line, for whatever is refused or damaged: 16-bit, animated, CMYK, palette, 1-bit, floating-point, Lab and HDR
    pictures, other formats, truncated files, and those beyond `limits`.
    """
    try:
        data = content(source, limits)
        form = format_of(data)
        picture = form.read(data, limits)
    except InputError as error:
        raise InputError(f"{where(source)}: {error}") from None
    except MemoryError:
        raise InputError(f"{where(source)}: more than the memory holds; a smaller picture, for example 6000 x 4000") from None
    if isinstance(source, Path) and source.suffix and source.suffix.lower() not in form.extensions:
        said = f"named {where(Path(source.suffix))} but holds {form.name}, and is written as {form.name}"
        return replace(picture, warnings=(said, *picture.warnings))
    return picture


def encode(picture: Picture, pixels: Pixels, tag: Tag | None) -> bytes:
    """A file like the source of `picture` with other upright `pixels` of the same shape.

    `tag`, if any, replaces a former one. Alpha, orientation, profile, EXIF, XMP, resolution and texts stay. PNG, BMP,
    TIFF and lossless WebP hold the pixels exactly; JPEG and lossy WebP are coded at the source's quality or better (see
    `jpeg`, `webp`), so read the result back before anything is said of it. InputError for pixels of another shape.
    """
    if pixels.shape != picture.pixels.shape or pixels.dtype != np.uint8:
        raise InputError(f"encode: pixels {pixels.shape} of {pixels.dtype}; uint8 of {picture.pixels.shape}, as decoded")
    alpha = None if picture.alpha is None else stored(picture.alpha, picture.orientation)
    note = None if tag is None else render(tag)
    return FORMATS[picture.format].write(picture, stored(pixels, picture.orientation), alpha, note)


def readback(data: bytes, pixels: Pixels, limits: Limits = LIMITS) -> Readback:
    """Decode what `encode` made and compare it with the `pixels` asked for."""
    found = decode(data, limits).pixels
    if found.shape != pixels.shape:
        raise InputError(f"readback: {found.shape} pixels; {pixels.shape}, as encoded")
    return Readback(found, int((np.maximum(found, pixels) - np.minimum(found, pixels)).max()))
