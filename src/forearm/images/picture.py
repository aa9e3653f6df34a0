"""A decoded picture: upright pixels for the models, and all that is needed to write the same kind of file back."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.uint8]  # h w 3 (RGB) or h w 1 (greyscale)
Plane = NDArray[np.uint8]  # h w


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the source file that is written back byte for byte: a PNG chunk, a JPEG segment, a WebP chunk, the
    tags of a TIFF.
    """

    name: str
    data: bytes
    late: bool = False  # it stood after the pixels


@dataclass(frozen=True, slots=True)
class Coding:
    """How the source's pixels were coded, so that the result is coded alike."""

    quality: int | None = None  # JPEG: the estimate from its quantisation tables, 1 to 100
    tables: tuple[tuple[int, ...], ...] = ()  # JPEG: brightness and colour tables, 64 numbers each, row by row
    progressive: bool = False  # JPEG
    rgb: bool = False  # JPEG: the components are R, G and B, not Y, Cb and Cr
    quantisers: tuple[int, int] = (0, 0)  # lossy WebP: the finest and the coarsest index in use, 0 (fine) to 127
    compression: int = 1  # TIFF: the tag of that name
    predictor: int = 1  # TIFF


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture of one file.

    `pixels` and `alpha` are upright: the EXIF orientation is applied. `width` and `height` are those stored in the
    file, so orientations 5 to 8 swap them against `pixels`. The file written back keeps the stored layout and the
    orientation tag. `icc` and `exif` are for looking at; what is written back is `kept`. Values are not colour-managed:
    a wide-gamut file's numbers are taken as they are.
    """

    pixels: Pixels
    alpha: Plane | None
    format: str  # "JPEG", "PNG", "WEBP", "BMP" or "TIFF": of the content, whatever the name says
    mode: str  # "L", "LA", "RGB" or "RGBA"
    width: int
    height: int
    lossless: bool
    orientation: int = 1  # EXIF: 1 to 8
    dpi: tuple[float, float] | None = None
    icc: bytes | None = None
    exif: bytes | None = None  # a TIFF-structured block; for a TIFF its own tags
    coding: Coding = Coding()
    kept: tuple[Part, ...] = ()
    warnings: tuple[str, ...] = ()


# orientation -> swap the axes, then flip top and bottom, then flip left and right
TURNS: dict[int, tuple[bool, bool, bool]] = {
    1: (False, False, False),
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def upright(stored: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """`stored` (h w ...) as a viewer shows it, for an EXIF orientation of 1 to 8."""
    swap, down, across = TURNS[orientation]
    turned = stored.swapaxes(0, 1) if swap else stored
    turned = turned[::-1] if down else turned
    turned = turned[:, ::-1] if across else turned
    return np.ascontiguousarray(turned)


def stored(shown: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """The inverse of `upright`."""
    swap, down, across = TURNS[orientation]
    turned = shown[:, ::-1] if across else shown
    turned = turned[::-1] if down else turned
    turned = turned.swapaxes(0, 1) if swap else turned
    return np.ascontiguousarray(turned)


def split(planes: NDArray[np.uint8]) -> tuple[Pixels, Plane | None]:
    """Decoded samples (h w, or h w with 2, 3 or 4 channels) as pixels and alpha."""
    if planes.ndim == 2:
        return np.ascontiguousarray(planes[..., None]), None
    if planes.shape[2] in (2, 4):
        return np.ascontiguousarray(planes[..., :-1]), np.ascontiguousarray(planes[..., -1])
    return np.ascontiguousarray(planes), None


def join(pixels: Pixels, alpha: Plane | None) -> NDArray[np.uint8]:
    """The inverse of `split`."""
    if alpha is not None:
        return np.concatenate((pixels, alpha[..., None]), axis=2)
    return pixels[..., 0] if pixels.shape[2] == 1 else pixels


def mode_of(pixels: Pixels, alpha: Plane | None) -> str:
    """The mode's name: L, LA, RGB or RGBA."""
    return ("L" if pixels.shape[2] == 1 else "RGB") + ("" if alpha is None else "A")
