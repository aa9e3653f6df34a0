"""Lenses, movement and glass."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.core.channel import blurred
from forearm.core.noise import Noise
from forearm.data.corruptions.fields import dragged, grid, one, picked, read
from forearm.data.corruptions.severity import LARGE, length, side, strength


def gaussian_blur(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` blurred with a Gaussian (`core.channel.blurred`: cut at 3 sigma, published at 4). Source: CIFAR-10-C and ImageNet-C.

    The challenge takes a radius of 1 or 2 at 224 pixels.
    """
    return blurred(x, length(x, severity, (0.4, 0.6, 0.7, 0.8, 1.0), (1.0, 2.0, 3.0, 4.0, 6.0))).clamp(0.0, 1.0)


def blur(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """x + share (mean of the ring around a pixel - x), share 0.2, 0.4, ... 1; 1 is the published operation.

    The ring is the border of a square of 5 x 5 pixels at 224 pixels (Pillow's BLUR), of 3 x 3 up to 168, then in proportion. Source: arXiv 2205.10617,
    authors' code.
    """
    share = strength(x, severity, (0.2, 0.4, 0.6, 0.8, 1.0))
    reach = max(1, round(2 * side(x) / LARGE))
    ring = torch.ones(2 * reach + 1, 2 * reach + 1, dtype=torch.float64)
    ring[1:-1, 1:-1] = 0.0
    return x.lerp(filtered(x, ring / ring.sum()), share).clamp(0.0, 1.0)


def filtered(x: Tensor, kernel: Tensor) -> Tensor:
    """Each channel of `x` under a symmetric `kernel` (odd x odd); the border is repeated."""
    c = x.shape[1]
    down, across = kernel.shape[0] // 2, kernel.shape[1] // 2
    around = F.pad(x, (across, across, down, down), mode="replicate")
    return F.conv2d(around, kernel.to(x).expand(c, 1, *kernel.shape), groups=c)


def glass_blur(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """Gaussian blur, each pixel read up to d pixels away (once, or a few times), the blur again. Source: CIFAR-10-C and ImageNet-C.

    Published are swaps one after the other in raster order, with moves of -d to d - 1; here all pixels move at once, by -d to d, and may be read twice.
    """
    sigma = length(x, severity, (0.05, 0.25, 0.4, 0.25, 0.4), (0.7, 0.9, 1.0, 1.1, 1.5))
    most = max(1, round(length(x, severity, (1.0, 1.0, 1.0, 1.0, 1.0), (1.0, 2.0, 2.0, 3.0, 4.0))))
    times = round(strength(x, severity, (1.0, 1.0, 1.0, 2.0, 2.0), (2.0, 1.0, 3.0, 2.0, 2.0)))
    row, column = grid(x)
    x = blurred(x, sigma)
    for _ in range(times):
        down, across = (noise.integers(x[:, 0], 2 * most + 1) - most for _ in range(2))
        x = picked(x, row + down, column + across)
    return blurred(x, sigma).clamp(0.0, 1.0)


def defocus_blur(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` under a disk of r pixels whose edge is softened by a Gaussian of sigma pixels, cut to 3 x 3 (5 x 5 where r > 8).

    The border is repeated (published: mirrored). Source: CIFAR-10-C and ImageNet-C.
    """
    radius = length(x, severity, (0.3, 0.4, 0.5, 1.0, 1.5), (3.0, 4.0, 6.0, 8.0, 10.0))
    sigma = strength(x, severity, (0.4, 0.5, 0.6, 0.2, 0.1), (0.1, 0.5, 0.5, 0.5, 0.5))
    return filtered(x, disk(radius, sigma)).clamp(0.0, 1.0)


def disk(radius: float, sigma: float) -> Tensor:
    """The kernel of `defocus_blur`, its sum 1, float64."""
    soft = 2 if radius > 8 else 1
    reach = math.ceil(radius) + soft
    place = torch.arange(-reach, reach + 1, dtype=torch.float64)
    inside = (place[:, None] ** 2 + place[None, :] ** 2 <= radius**2).to(torch.float64)
    near = torch.exp(-0.5 * (torch.arange(-soft, soft + 1, dtype=torch.float64) / sigma) ** 2)
    near = (near / near.sum()).reshape(1, 1, 1, -1)
    across = F.conv2d((inside / inside.sum())[None, None], near, padding=(0, soft))
    kernel = F.conv2d(across, near.transpose(2, 3), padding=(soft, 0))[0, 0]
    return kernel / kernel.sum()


def motion_blur(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` smeared along a random direction within 45 degrees of the horizontal (`fields.dragged`). Source: CIFAR-10-C and ImageNet-C."""
    radius = length(x, severity, (6.0, 6.0, 6.0, 8.0, 9.0), (10.0, 15.0, 15.0, 15.0, 20.0))
    sigma = length(x, severity, (1.0, 1.5, 2.0, 2.0, 2.5), (3.0, 5.0, 8.0, 12.0, 15.0))
    return dragged(x, noise.uniform(one(x), -45.0, 45.0), radius, sigma).clamp(0.0, 1.0)


def zoom_blur(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """The mean of `x` and of `x` enlarged about its centre by 1, ..., z in equal steps (bilinear), `x` itself counted twice.

    Source: CIFAR-10-C and ImageNet-C.
    """
    most = strength(x, severity, (1.05, 1.10, 1.15, 1.20, 1.25), (1.10, 1.15, 1.20, 1.24, 1.30))
    steps = round(strength(x, severity, (6.0, 11.0, 16.0, 21.0, 26.0), (11.0, 16.0, 11.0, 13.0, 11.0)))
    row, column = grid(x)
    middle, centre = (x.shape[2] - 1) / 2, (x.shape[3] - 1) / 2
    total = 2.0 * x
    for i in range(1, steps):
        factor = 1.0 + i * (most - 1.0) / (steps - 1)
        total = total + read(x, (row.to(x.dtype) - middle) / factor + middle, (column.to(x.dtype) - centre) / factor + centre)
    return (total / (steps + 1)).clamp(0.0, 1.0)
