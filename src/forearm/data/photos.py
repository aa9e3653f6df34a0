"""Photo files as squares of pixels, only as many as are asked for."""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from forearm.errors import InputError, SpecError

MOST = 8 * 2**30  # bytes of pixels in memory: ImageNet's 50,000 validation photos at 224 x 224 are 7.0 GiB
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


def open_photo(path: Path, mode: str) -> Image.Image:
    """A picture file as 8 bits a channel ("RGB" or "L"). InputError where it is none."""
    try:
        with Image.open(path) as photo:
            if photo.mode in ("I", "F") or photo.mode.startswith("I;"):
                raise InputError(f"{path}: pixels of mode {photo.mode}; 8 bits a channel, for example RGB or L")
            return photo.convert(mode)
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, Image.DecompressionBombError) as error:
        if isinstance(error, InputError):
            raise
        why = " ".join(str(error).split())[:120]
        raise InputError(f"{path}: not a readable photo ({why}); for example a JPEG or PNG file") from None


def square(path: Path, side: int, crop: float = 1.0) -> NDArray[np.uint8]:
    """The centre square of a photo at `side` x `side`, RGB (antialiased bilinear), `side side 3`.

    `crop` is the part of the shorter edge that is kept: 0.875 is the usual "resize to 256, cut out 224" up to a rounding of the edge.
    The stored pixels count: an EXIF turn is not applied, as it is not where the published accuracies come from. InputError where the
    file is no readable picture of 8 bits.
    """
    rgb = open_photo(path, "RGB")
    edge = min(rgb.size) if crop == 1.0 else max(1, round(crop * min(rgb.size)))
    left, top = (rgb.width - edge) // 2, (rgb.height - edge) // 2
    box = (left, top, left + edge, top + edge)
    return np.asarray(rgb.resize((side, side), Image.Resampling.BILINEAR, box=box))


def decode(paths: Sequence[Path], side: int, crop: float = 1.0) -> Tensor:
    """The photos as uint8 `n 3 side side`, in the order of `paths`. SpecError where they would take more than `MOST` bytes."""
    if not isinstance(side, int) or not 1 <= side <= 4096:
        raise SpecError(f"side: got {side!r}; pixels from 1 to 4096, for example 224")
    if not isinstance(crop, int | float) or not 0.0 < crop <= 1.0:
        raise SpecError(f"crop: got {crop!r}; the part of the shorter edge to keep, above 0 and up to 1, for example 0.875")
    if len(paths) * 3 * side * side > MOST:
        fits = MOST // (3 * side * side)
        raise SpecError(f"first: {len(paths)} photos at {side} x {side}; up to {fits} fit in memory, for example first={min(fits, 10000)}")
    images = torch.empty(len(paths), 3, side, side, dtype=torch.uint8)

    def put(i: int) -> None:
        images[i] = torch.from_numpy(square(paths[i], side, crop).transpose(2, 0, 1).copy())

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for _ in pool.map(put, range(len(paths))):
            pass
    return images


def photo_files(folder: Path) -> list[Path]:
    """The photos directly in a folder, by name; other files and hidden ones are passed over."""
    with os.scandir(folder) as found:
        names = sorted(e.name for e in found if not e.name.startswith(".") and Path(e.name).suffix.lower() in SUFFIXES and e.is_file())
    return [folder / name for name in names]
