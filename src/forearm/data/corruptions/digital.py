"""What software does: squares, frames, JPEG, large pixels."""

from __future__ import annotations

import torch
from torch import Tensor

from forearm.core.channel import jpeg
from forearm.core.noise import Noise
from forearm.core.view import resize
from forearm.data.corruptions.fields import each, grid, one, picked
from forearm.data.corruptions.severity import LARGE, side, strength


def mosaic(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """A square somewhere in `x` becomes colour noise (7 in 10), black, white or grey (1 in 10 each).

    Its edge is 13 to 26 pixels at 224, in proportion elsewhere and at least 2; severity s takes the s-th fifth of that range, so that a severity drawn
    at random gives the published one. It keeps twice its edge from the upper and left border, three times from the others or less. Source: arXiv
    2205.10617, authors' code.
    """
    h, w = x.shape[2:]
    low = strength(x, severity, (13.0, 15.6, 18.2, 20.8, 23.4))
    edge = (noise.uniform(one(x), low, low + 2.6) * (side(x) / LARGE)).round().clamp_min(2.0)
    top = (2.0 * edge + noise.uniform(one(x)) * (h - 4.0 * edge)).floor()
    left = (2.0 * edge + noise.uniform(one(x)) * (w - 4.0 * edge)).floor()
    row, column = (place[:, None] for place in grid(x))
    inside = (row >= each(top)) & (row < each(top + edge)) & (column >= each(left)) & (column < each(left + edge))
    kind = each(noise.uniform(one(x)))
    flat = torch.where(kind < 0.8, 0.0, torch.where(kind < 0.9, 1.0, 0.5)).to(x.dtype)
    return torch.where(inside, torch.where(kind < 0.7, noise.uniform(x), flat), x)


def random_padding(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` shrunk to 92, 86, 80, 74 or 68 % (published: 65 to 95 %) at a random place of a grey frame, or of one of colour noise, half each.

    Antialiased bilinear (published: bicubic). Source: arXiv 2205.10617, authors' code.
    """
    share = strength(x, severity, (0.92, 0.86, 0.80, 0.74, 0.68))
    h, w = x.shape[2:]
    small = resize(x, (max(1, round(h * share)), max(1, round(w * share))))
    top, left = (noise.integers(one(x), size - less + 1).reshape(-1, 1, 1) for size, less in zip(x.shape[2:], small.shape[2:], strict=True))
    rows, columns = (place - at for place, at in zip(grid(x), (top, left), strict=True))
    inside = (rows >= 0) & (rows < small.shape[2]) & (columns >= 0) & (columns < small.shape[3])
    grey, flat = each(noise.uniform(one(x))), each(noise.integers(one(x), 2)) == 0
    frame = torch.where(flat, grey, noise.uniform(x))
    return torch.where(inside[:, None], picked(small, rows, columns), frame).clamp(0.0, 1.0)


def jpeg_compression(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` after JPEG (`core.channel.jpeg`: 8 bits, colours 4:2:0), quality 80 to 40 at 32 pixels, 25 to 7 at 224. Source: CIFAR-10-C and ImageNet-C."""
    quality = strength(x, severity, (80.0, 65.0, 58.0, 50.0, 40.0), (25.0, 18.0, 15.0, 10.0, 7.0))
    return jpeg(x, noise=noise, quality=round(quality))


def pixelate(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` at a part of its size and back, both with Pillow's box: the mean of the pixels whose middle lies in the box. Source: CIFAR-10-C and ImageNet-C."""
    share = strength(x, severity, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25))
    rows, columns = (boxes(size, max(1, int(size * share + 1e-9))).to(x) for size in x.shape[2:])
    return (rows @ x @ columns.T).clamp(0.0, 1.0)


def boxes(size: int, small: int) -> Tensor:
    """The matrix (`size size`, float64) that shrinks a line of pixels to `small` boxes and spreads them again."""
    middle = torch.arange(size, dtype=torch.float64) + 0.5
    centre = (torch.arange(small, dtype=torch.float64) + 0.5) * (size / small)
    away = (middle[None, :] - centre[:, None]) * (small / size)
    shrink = ((away >= -0.5) & (away < 0.5)).to(torch.float64)
    nearest = (middle * (small / size)).long().clamp_max(small - 1)
    return (shrink / shrink.sum(1, keepdim=True))[nearest]
