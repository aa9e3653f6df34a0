"""What several operations are made of: random fields over a picture, and pictures read at other places."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.core.channel import blurred
from forearm.core.noise import Noise

COARSE = 8.0  # pixels: a smoother field is drawn on a coarser grid


def each(values: Tensor) -> Tensor:
    """One value a picture, `n` -> `n 1 1 1`."""
    return values.reshape(-1, 1, 1, 1)


def one(x: Tensor) -> Tensor:
    """One zero a picture, `n`: the shape of a draw."""
    return x.new_zeros(len(x))


def picked(x: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """`x` (`n c h w`) read at whole `rows` and `columns` (int64, broadcast to `n h' w'`) -> `n c h' w'`; places outside go to the border."""
    n, c, h, w = x.shape
    place = rows.clamp(0, h - 1) * w + columns.clamp(0, w - 1)
    out = place.shape[-2:]
    return x.flatten(2).gather(2, place.expand(n, *out).flatten(1)[:, None].expand(n, c, -1)).reshape(n, c, *out)


def grid(x: Tensor) -> tuple[Tensor, Tensor]:
    """The row and the column of each pixel, int64, `1 h 1` and `1 1 w`."""
    row, column = torch.arange(x.shape[2], device=x.device), torch.arange(x.shape[3], device=x.device)
    return row[None, :, None], column[None, None, :]


def read(x: Tensor, rows: Tensor, columns: Tensor, outside: str = "border") -> Tensor:
    """`x` read at real `rows` and `columns` (pixels, broadcast to `n h w`), bilinear; `outside`: "border", "reflection" or "zeros"."""
    n, _, h, w = x.shape
    across = ((2.0 * columns + 1.0) / w - 1.0).expand(n, h, w)
    down = ((2.0 * rows + 1.0) / h - 1.0).expand(n, h, w)
    return F.grid_sample(x, torch.stack([across, down], -1), mode="bilinear", padding_mode=outside, align_corners=False)


def plasma(x: Tensor, noise: Noise, decay: float) -> Tensor:
    """Clouds, `n 1 h w`, their least 0 and most 1: diamond-square midpoint displacement on the torus.

    A point is the mean of its four neighbours (first those at the corners of its square, then those beside it) plus uniform noise in +-a; `a` is
    divided by decay^2 each time that the step is halved, as in CIFAR-10-C, whose script multiplies the amplitude by itself. The field is drawn on the next
    power of 2 and cut. Source: Fournier, Fussell and Carpenter, CACM 1982; Miller, SIGGRAPH 1986 (diamond-square).
    """
    n, _, h, w = x.shape
    size = 1 << max(1, (max(h, w) - 1).bit_length())
    u = noise.uniform(x.new_empty(n, size, size), -1.0, 1.0)
    height = torch.zeros_like(u)
    step, reach = size, 1.0
    while step > 1:
        half = step // 2
        corner = height[:, ::step, ::step]
        pairs = corner + corner.roll(-1, 1)
        middle = (pairs + pairs.roll(-1, 2)) / 4.0 + reach * u[:, half::step, half::step]
        above = (middle + middle.roll(1, 1) + corner + corner.roll(-1, 2)) / 4.0 + reach * u[:, ::step, half::step]
        beside = (middle + middle.roll(1, 2) + corner + corner.roll(-1, 1)) / 4.0 + reach * u[:, half::step, ::step]
        height[:, half::step, half::step], height[:, ::step, half::step], height[:, half::step, ::step] = middle, above, beside
        step, reach = half, reach / decay**2
    least, most = height.amin((1, 2), keepdim=True), height.amax((1, 2), keepdim=True)
    return ((height - least) / (most - least))[:, None, :h, :w]


def smooth(x: Tensor, noise: Noise, sigma: float, *, normal: bool = False) -> Tensor:
    """White noise blurred with a Gaussian of `sigma` pixels, `n 1 h w`: uniform in [-1, 1], or standard normal.

    Drawn with a margin of 3 sigma, so its size is the same up to the border. Beyond 8 pixels it is drawn on a grid that is f = floor(sigma / 4) times
    coarser, its noise divided by f (the sd of a mean of f^2 draws), and interpolated. Computed in float64: a convolution of one float32 channel has
    other last bits in another batch.
    """
    n, _, h, w = x.shape
    factor = math.floor(sigma / 4.0) if sigma > COARSE else 1
    margin = math.ceil(3.0 * sigma / factor)
    rows, columns = -(-h // factor) + 2 * margin, -(-w // factor) + 2 * margin
    white = x.new_empty(n, 1, rows, columns, dtype=torch.float64)
    white = (noise.normal(white) if normal else noise.uniform(white, -1.0, 1.0)) / factor
    field = blurred(white, sigma / factor)[:, :, margin : rows - margin, margin : columns - margin]
    if factor > 1:
        field = F.interpolate(field, scale_factor=float(factor), mode="bilinear")
    return field[:, :, :h, :w].to(x.dtype)


def dragged(x: Tensor, angle: Tensor, radius: float, sigma: float) -> Tensor:
    """`x` smeared along `angle` (`n`, degrees): sum_i k_i x(p + i direction), k_i = exp(-i^2 / 2 sigma^2) normalised, i = 0 to 2 ceil(radius).

    Places are rounded to pixels, the border is repeated: ImageMagick's MotionBlurImage.
    """
    turn = angle.to(torch.float64).reshape(-1, 1, 1) * (math.pi / 180.0)
    down, across = turn.sin(), turn.cos()
    row, column = grid(x)
    weights = [math.exp(-0.5 * (i / sigma) ** 2) for i in range(2 * math.ceil(radius) + 1)]
    total = torch.zeros_like(x)
    for i, weight in enumerate(weights):
        at = row + (i * down - 0.5).ceil().long(), column + (i * across - 0.5).ceil().long()
        total += weight / sum(weights) * picked(x, *at)
    return total
