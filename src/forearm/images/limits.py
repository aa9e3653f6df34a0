"""How much one picture file may ask for. Checked on the file's own headers, before anything is decoded or inflated."""

from __future__ import annotations

from dataclasses import dataclass

from forearm.errors import InputError


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on one file; decoding needs 10 (JPEG) to 18 (WebP) bytes a pixel in all."""

    max_bytes: int = 64 * 2**20  # size of the file
    max_pixels: int = 50_000_000  # width times height
    max_side: int = 30_000  # the longer of width and height
    max_inflated: int = 16 * 2**20  # a compressed text or colour profile, once inflated
    max_parts: int = 65_536  # chunks, segments or tags
    max_scans: int = 64  # passes of a progressive JPEG: each costs a whole decode


LIMITS = Limits()


def check_size(width: int, height: int, limits: Limits) -> None:
    """Refuse a picture without pixels, or with more than `limits` allows (InputError)."""
    if width < 1 or height < 1:
        raise InputError(f"{width} x {height} pixels; at least 1 x 1, for example 640 x 480")
    if max(width, height) > limits.max_side:
        raise InputError(f"{width} x {height} pixels; sides up to {limits.max_side}, for example 6000 x 4000")
    if width * height > limits.max_pixels:
        raise InputError(f"{width} x {height} pixels; up to {limits.max_pixels} in all, for example 6000 x 4000")


def check_parts(count: int, limits: Limits) -> None:
    """Refuse a file cut into more pieces than `limits` allows (InputError)."""
    if count > limits.max_parts:
        raise InputError(f"more than {limits.max_parts} chunks, segments or tags; fewer, for example the same picture saved anew")
