"""How far two batches of pictures look apart: `n c h w` in [0, 1], twice -> one number per example (`n`, float64)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from forearm.core import lpips as squeeze

_STRIP = 1 << 21  # values per strip that SSIM holds at a time, for each of its maps
_RADIUS, _SIGMA = 5, 1.5  # the window: 11 x 11 pixels
_C1, _C2 = 0.01**2, 0.03**2  # for a data range of 1


def mse(a: Tensor, b: Tensor) -> Tensor:
    """Mean squared error, in units of the range [0, 1] squared."""
    total = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    for rows in _strips(a, 0):
        total += (a[:, :, rows].double() - b[:, :, rows].double()).square().sum((1, 2, 3))
    return total / a[0].numel()


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB, -10 log10(mse); infinite for equal pictures."""
    return -10.0 * mse(a, b).log10()


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Structural similarity (Wang et al., IEEE TIP 2004, eq. 13): at most 1, and 1 for equal pictures.

    The mean over channels and over all places of a Gaussian window of sigma 1.5 on 11 x 11 pixels that lie whole inside
    (eq. 14 to 17; K1 = 0.01, K2 = 0.03, range 1). In a picture with fewer than 11 rows (columns) the window has the
    largest odd number of rows (columns) that fits, its weights summing to 1 again; the paper does not say.
    Memory is bounded: the maps are made strip by strip.
    """
    down, across = _window(a.shape[2]).tolist(), _window(a.shape[3]).tolist()
    total = torch.zeros(len(a), dtype=torch.float64, device=a.device)
    halo = len(down) - 1
    for rows in _strips(a, halo):
        local = _ssim_map(a[:, :, rows].float(), b[:, :, rows].float(), down, across)
        total += local.sum((1, 2, 3), dtype=torch.float64)
    return total / (a.shape[1] * (a.shape[2] - halo) * (a.shape[3] - len(across) + 1))


def lpips(a: Tensor, b: Tensor, weights: Path) -> Tensor:
    """LPIPS-Squeeze v0.1 (Zhang et al., CVPR 2018, eq. 1) with the weights in a folder; 0 for equal pictures.

    RGB of 17 pixels or more a side. Cost: one forward pass of SqueezeNet 1.1 per picture of both batches, and reading
    the weights; `forearm.core.lpips.load` keeps the network between calls.
    """
    return squeeze.load(weights, a.device)(a, b).double()


def _strips(x: Tensor, halo: int) -> Iterator[slice]:
    """The rows of `x` in strips that overlap by `halo`, so that windows of halo + 1 rows are each met once."""
    n, c, h, w = x.shape
    step = max(_STRIP // (n * c * w), 16)
    for top in range(0, h - halo, step):
        yield slice(top, min(top + step + halo, h))


def _window(size: int) -> Tensor:
    """The weights of one axis: a Gaussian on 11 places, or on the largest odd number of places that fits."""
    radius = min(_RADIUS, (size - 1) // 2)
    weights = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / _SIGMA) ** 2)
    return weights / weights.sum()


def _ssim_map(a: Tensor, b: Tensor, down: list[float], across: list[float]) -> Tensor:
    """Eq. 13 at every place where the window fits. Moments are taken about 0.5, against cancellation in float32."""
    a, b = a - 0.5, b - 0.5
    mean_a, mean_b = _blur(a, down, across), _blur(b, down, across)
    spread = _blur(a * a + b * b, down, across) - mean_a.square() - mean_b.square()
    shared = _blur(a * b, down, across) - mean_a * mean_b
    mean_a, mean_b = mean_a + 0.5, mean_b + 0.5
    light = (2.0 * mean_a * mean_b + _C1) / (mean_a.square() + mean_b.square() + _C1)
    return light * (2.0 * shared + _C2) / (spread + _C2)


def _blur(x: Tensor, down: list[float], across: list[float]) -> Tensor:
    """The windowed mean, one axis after the other, by shifted sums (17 times faster on a CPU than a convolution)."""
    for axis, weights in ((2, down), (3, across)):
        places = x.shape[axis] - len(weights) + 1
        out = x.narrow(axis, 0, places) * weights[0]
        for k in range(1, len(weights)):
            out.add_(x.narrow(axis, k, places), alpha=weights[k])
        x = out
    return x
