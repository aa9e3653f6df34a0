"""Pixels in other places."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from forearm.core.noise import Noise
from forearm.data.corruptions.fields import grid, one, picked, read, smooth
from forearm.data.corruptions.severity import LARGE, index, length, side, strength


def rotate(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` turned about its centre by up to 5 degrees either way, black where nothing was.

    Severity s turns by s - 1 to s degrees, so that a severity drawn at random gives the published uniform [-5, 5]. Bilinear (published: nearest).
    Source: arXiv 2205.10617, authors' code.
    """
    low = strength(x, severity, (0.0, 1.0, 2.0, 3.0, 4.0))
    degrees = noise.uniform(one(x), low, low + 1.0) * (2.0 * noise.integers(one(x), 2) - 1.0)
    turn = (degrees * (math.pi / 180.0)).reshape(-1, 1, 1)
    row, column = grid(x)
    middle, centre = (x.shape[2] - 1) / 2, (x.shape[3] - 1) / 2
    down, across = row - middle, column - centre
    rows = middle + turn.cos() * down + turn.sin() * across
    columns = centre - turn.sin() * down + turn.cos() * across
    return read(x, rows.to(x.dtype), columns.to(x.dtype), "zeros").clamp(0.0, 1.0)


def horizontal_flip(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` mirrored from left to right. All severities are the same. Source: arXiv 2205.10617."""
    index(severity)
    return x.flip(3)


def vertical_flip(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` upside down. All severities are the same. Source: arXiv 2205.10617."""
    index(severity)
    return x.flip(2)


def extend(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """Each pixel read floor(o u) pixels below and floor(o v) to the right, u and v uniform in [0, 1): a ragged, slightly shifted picture.

    The offset o is 3 to 9 pixels at 224, as published; 1.3 to 3 at 32, where fewer would move nothing. Source: arXiv 2205.10617, authors' code.
    """
    offset = length(x, severity, (1.3, 1.6, 2.0, 2.5, 3.0), (3.0, 4.5, 6.0, 7.5, 9.0))
    row, column = grid(x)
    down, across = ((offset * noise.uniform(x[:, 0])).long() for _ in range(2))
    return picked(x, row + down, column + across)


def block_shuffle(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` cut in two between 40 and 60 % of its height, or of its width, and the parts exchanged. All severities are the same.

    Source: arXiv 2205.10617, authors' code.
    """
    index(severity)
    row, column = grid(x)
    part = noise.uniform(one(x), 0.4, 0.6).reshape(-1, 1, 1)
    upright = noise.integers(one(x), 2).reshape(-1, 1, 1) == 0
    h, w = x.shape[2:]
    down = torch.where(upright, (part * h).long(), 0)
    across = torch.where(upright, 0, (part * w).long())
    return picked(x, (row + down) % h, (column + across) % w)


def local_shuffle(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` cut into squares, the last of each row and column overlapping its neighbour, and put together again in a random order.

    The edge of a square is 98, 94, 90, 86 or 82 pixels at 224 (published: 80 to 100), in proportion elsewhere. Source: arXiv 2205.10617, authors' code.
    """
    edge = max(1, round(strength(x, severity, (98.0, 94.0, 90.0, 86.0, 82.0)) * side(x) / LARGE))
    (down, row), (across, column) = (_tiles(size, edge, x.device) for size in x.shape[2:])
    top, left = (torch.tensor(_starts(size, edge), device=x.device) for size in x.shape[2:])
    tile = down[:, None] * len(left) + across[None, :]
    order = noise.uniform(x.new_empty(len(x), len(top) * len(left), dtype=torch.float64)).argsort(1)
    source = order[:, tile]
    return picked(x, top[source // len(left)] + row[:, None], left[source % len(left)] + column[None, :])


def _starts(size: int, edge: int) -> list[int]:
    """Where the tiles of an axis begin; the last ends with it."""
    return [*range(0, size - edge, edge), size - edge]


def _tiles(size: int, edge: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each pixel of an axis: its tile (of two that overlap the last), and its place within."""
    starts = _starts(size, edge)
    place = torch.arange(size, device=device)
    tile = torch.where(place >= starts[-1], len(starts) - 1, place // edge)
    return tile, place - torch.tensor(starts, device=device)[tile]


def elastic_transform(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` read at affine(p + a g(p)): g uniform noise blurred with sigma pixels, the affine map moving three corners of a square by up to c pixels.

    The square is a third of the side each way from the centre. Bilinear, mirrored at the border; one resampling (published: the affine map first,
    then the wave). Severities 1 and 2 mostly bend the whole, 3 to 5 the details, so a higher one is not farther from `x`. Source: CIFAR-10-C and
    ImageNet-C; after Simard, Steinkraus and Platt, ICDAR 2003.
    """
    wave = length(x, severity, (0.0, 1.6, 2.56, 3.2, 3.2), (488.0, 488.0, 12.2, 17.08, 29.28))
    sigma = length(x, severity, (0.0, 6.4, 1.92, 1.28, 0.96), (170.8, 19.52, 2.44, 2.44, 2.44))
    most = length(x, severity, (2.56, 2.24, 1.92, 1.6, 0.96), (24.4, 48.8, 4.88, 4.88, 4.88))
    row, column = (place.to(x.dtype) for place in grid(x))
    if wave > 0.0:
        row, column = (place + wave * smooth(x, noise, sigma).squeeze(1) for place in (row, column))
    square = max(1, side(x) // 3)
    below, right = (row - (x.shape[2] // 2 - square)) / (2 * square), (column - (x.shape[3] // 2 - square)) / (2 * square)
    corner, beside, opposite = noise.uniform(x.new_empty(len(x), 3, 2, 1, 1), -most, most).unbind(1)
    down, across = (corner + right[:, None] * (beside - corner) + below[:, None] * (opposite - beside)).unbind(1)
    return read(x, row + down, column + across, "reflection").clamp(0.0, 1.0)
