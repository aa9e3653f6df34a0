"""BMP files: the pixel array is read and replaced in place, so that headers, resolution and colour profile stay as they
are.
"""

from __future__ import annotations

from struct import unpack_from

import numpy as np

from forearm.errors import InputError
from forearm.images.limits import Limits, check_size
from forearm.images.picture import Coding, Part, Picture, Pixels, Plane, mode_of

GREYS = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 3, axis=1)
MASKS = {(0xFF0000, 0xFF00, 0xFF): 0, (0xFF0000, 0xFF00, 0xFF, 0): 0, (0xFF0000, 0xFF00, 0xFF, 0xFF000000): 1}
HEADERS = {40, 52, 56, 64, 108, 124}


def read(data: bytes, limits: Limits) -> Picture:
    """Read an uncompressed BMP of 24 bits, of 32 bits in the order B, G, R, A, or of 8 bits with the palette of all
    greys.

    A fourth byte that no header calls alpha is kept as it is and is no alpha.
    """
    if len(data) < 54 or unpack_from("<I", data, 14)[0] not in HEADERS:
        raise InputError("a BMP with a cut or unknown header; a whole file with a header of 40 bytes or more, for example saved anew")
    start, header, width, signed_height, _, bits, compression = unpack_from("<IIiiHHI", data, 10)
    height = abs(signed_height)
    check_size(width, height, limits)
    if compression not in (0, 3):
        raise InputError(f"a BMP of compression {compression}; none, for example saved anew as 24-bit")
    has_alpha = _check_coding(data, start, header, bits, compression)
    row = (width * bits // 8 + 3) // 4 * 4
    if start < 14 + header or start + row * height > len(data):
        raise InputError(
            f"a truncated BMP ({len(data)} bytes where {start + row * height} are needed); a whole file, for example copied again"
        )
    rows = np.frombuffer(data, np.uint8, row * height, start).reshape(height, row)
    planes = rows[:: 1 if signed_height < 0 else -1, : width * bits // 8].reshape(height, width, bits // 8)
    pixels = np.ascontiguousarray(planes if bits == 8 else planes[..., 2::-1])
    alpha = np.ascontiguousarray(planes[..., 3]) if has_alpha else None
    across, down = unpack_from("<ii", data, 38)
    return Picture(
        pixels=pixels,
        alpha=alpha,
        format="BMP",
        mode=mode_of(pixels, alpha),
        width=width,
        height=height,
        lossless=True,
        dpi=(across * 0.0254, down * 0.0254) if across > 0 and down > 0 else None,
        icc=_profile(data, header),
        coding=Coding(),
        kept=(Part("file", data),),
    )


def _check_coding(data: bytes, start: int, header: int, bits: int, compression: int) -> bool:
    """Whether the file has an alpha channel.

    InputError for what is neither 8-bit grey, nor 24-bit, nor 32-bit B G R A.
    """
    if bits == 8 and compression == 0:
        used = unpack_from("<I", data, 46)[0] or 256
        palette = np.frombuffer(data, np.uint8, min(4 * 256, max(0, len(data) - 14 - header)), 14 + header)
        if used != 256 or palette.size != 1024 or not np.array_equal(palette.reshape(256, 4)[:, :3], GREYS) or start < 14 + header + 1024:
            raise InputError("a BMP with a palette; greyscale (the 256 greys in order) or 24-bit, for example saved anew as 24-bit")
        return False
    if bits == 24 and compression == 0:
        return False
    if bits == 32 and compression == 0:
        return False
    if bits == 32 and len(data) >= 70:
        masks = unpack_from("<4I" if header >= 56 else "<3I", data, 54)
        if masks in MASKS:
            return bool(MASKS[masks])
        raise InputError("a BMP with channel masks of its own; B, G, R, A in this order, for example saved anew as 24-bit")
    raise InputError(f"a BMP of {bits} bits a pixel; 24 or 32, or 8 with the palette of all greys, for example saved anew as 24-bit")


def _profile(data: bytes, header: int) -> bytes | None:
    """The embedded colour profile of a version 5 header."""
    if header < 124 or len(data) < 138 or data[70:74] != b"DEBM":
        return None
    at, size = unpack_from("<II", data, 126)
    return data[14 + at : 14 + at + size] or None


def write(picture: Picture, pixels: Pixels, alpha: Plane | None, note: str | None) -> bytes:
    """The source file with other pixels.

    BMP has no place for `note`: such a file cannot be told from one that was never armed.
    """
    out = bytearray(picture.kept[0].data)
    start, _, _, signed_height, _, bits = unpack_from("<IIiiHH", out, 10)
    height, width = pixels.shape[:2]
    row = (width * bits // 8 + 3) // 4 * 4
    rows = np.frombuffer(out, np.uint8, row * height, start).reshape(height, row)
    planes = rows[:: 1 if signed_height < 0 else -1, : width * bits // 8]
    planes = planes.reshape(height, width, bits // 8).copy()
    planes[..., : pixels.shape[2]] = pixels[..., ::-1]
    if alpha is not None:
        planes[..., 3] = alpha
    rows[:: 1 if signed_height < 0 else -1, : width * bits // 8] = planes.reshape(height, -1)
    return bytes(out)


def notes(data: bytes, limits: Limits) -> list[str]:
    """None: the format has no place for a text."""
    return []
