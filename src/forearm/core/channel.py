"""What happens to pictures on their way: codecs, resizes, filters, noise. As wear between release and attack, and as purifiers.

Every channel has the shape `(x, *, noise, <options>) -> x`: pictures `n c h w` in [0, 1] in, the same shape, type and range out, each example
by itself, the same result for the same noise. Only the codecs (jpeg, webp) round to 8 bits, at their entrance (halves up) and, by their nature,
at their exit; what they give carries no gradient. Cost: no pass of a model.
"""

from __future__ import annotations

import io
import math
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from forearm.core.noise import Noise
from forearm.core.quantize import levels
from forearm.core.view import resize as scaled
from forearm.errors import InputError, SpecError

CHANNELS: dict[str, str] = {
    "none": "forearm.core.channel:none",
    "jpeg": "forearm.core.channel:jpeg",
    "webp": "forearm.core.channel:webp",
    "resize": "forearm.core.channel:resize",
    "bit_depth": "forearm.core.channel:bit_depth",
    "gaussian": "forearm.core.channel:gaussian",
    "median": "forearm.core.channel:median",
    "total_variation": "forearm.core.channel:total_variation",
    "uniform": "forearm.core.channel:uniform",
}

SUBSAMPLINGS = ("4:4:4", "4:2:2", "4:2:0")
WEBP_LONGEST = 16383  # pixels an edge


def none(x: Tensor, *, noise: Noise) -> Tensor:
    """`x` itself: nothing happens."""
    return x


def jpeg(x: Tensor, *, noise: Noise, quality: int = 75, subsampling: str = "4:2:0") -> Tensor:
    """`x` after baseline JPEG by libjpeg (through Pillow): rounded to 8 bits, encoded, decoded.

    `quality` 1 to 100; `subsampling` of the colours "4:4:4", "4:2:2" or
    "4:2:0", without meaning for greyscale. RGB or greyscale (1 channel). Raises SpecError for another option. Source: Guo et al., ICLR 2018
    (arXiv 1711.00117), section 3 (quality 75).
    """
    _whole("jpeg: quality", quality, 1, 100, 75)
    if subsampling not in SUBSAMPLINGS:
        raise SpecError(f"jpeg: got subsampling={subsampling!r}; one of {', '.join(SUBSAMPLINGS)}, for example '4:2:0'")
    return _recoded(x, partial(_file, kind="JPEG", quality=quality, subsampling=subsampling))


def webp(x: Tensor, *, noise: Noise, quality: int = 80) -> Tensor:
    """`x` after lossy WebP by libwebp (through Pillow, method 4): rounded to 8 bits, encoded (colours always 4:2:0), decoded.

    `quality` 0 to 100. Greyscale travels as three equal channels and comes back as their luma. At most 16383 pixels an edge. Raises SpecError
    for another option, InputError for a larger picture.
    """
    _whole("webp: quality", quality, 0, 100, 80)
    if max(x.shape[2:]) > WEBP_LONGEST:
        raise InputError(f"webp: got {x.shape[3]} x {x.shape[2]} pixels; at most {WEBP_LONGEST} an edge, for example 224 x 224")
    return _recoded(x, partial(_file, kind="WEBP", quality=quality))


def resize(x: Tensor, *, noise: Noise, side: int | None = None) -> Tensor:
    """`x` resized so that its shorter edge is `side` pixels (None: half of what it is), and back to its own size.

    Antialiased bilinear both ways (`core.view.resize`), aspect kept to the pixel; no rounding to 8 bits in between. Differentiable.
    """
    height, width = x.shape[2:]
    short = min(height, width)
    wanted = max(1, short // 2) if side is None else side
    _whole("resize: side", wanted, 1, 1 << 16, 112)
    small = (max(1, round(height * wanted / short)), max(1, round(width * wanted / short)))
    return scaled(scaled(x, small), (height, width)).clamp(0.0, 1.0)


def bit_depth(x: Tensor, *, noise: Noise, bits: int = 4) -> Tensor:
    """`x` on the grid of `bits` bits a channel: round(x (2^bits - 1)) / (2^bits - 1), `bits` 1 to 8. Its gradient is 0.

    Source: feature squeezing, Xu et al., NDSS 2018 (arXiv 1704.01155), section III.A.
    """
    _whole("bit_depth: bits", bits, 1, 8, 4)
    top = 2**bits - 1
    grid: Tensor = (x * top).round() / top
    return grid


def gaussian(x: Tensor, *, noise: Noise, sigma: float = 1.0) -> Tensor:
    """`x` blurred with a Gaussian of `sigma` pixels (`blurred`), kept in [0, 1] against rounding."""
    return blurred(x, sigma).clamp(0.0, 1.0)


def blurred(x: Tensor, sigma: float) -> Tensor:
    """`x` (`n c h w`) convolved with a Gaussian of `sigma` pixels, cut at 3 sigma, its weights summing to 1; the border is repeated outwards.

    Linear, so differentiable everywhere; values leave the range of `x` by rounding only.
    """
    _positive("gaussian: sigma", sigma, 1.0)
    radius = max(1, math.ceil(3.0 * sigma))
    place = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (place / sigma) ** 2)
    weights = (weights / weights.sum()).to(x)
    channels = x.shape[1]
    down = F.pad(x, (0, 0, radius, radius), mode="replicate")
    down = F.conv2d(down, weights.reshape(1, 1, -1, 1).expand(channels, 1, -1, 1), groups=channels)
    across = F.pad(down, (radius, radius, 0, 0), mode="replicate")
    return F.conv2d(across, weights.reshape(1, 1, 1, -1).expand(channels, 1, 1, -1), groups=channels)


def median(x: Tensor, *, noise: Noise, size: int = 3) -> Tensor:
    """`x` with each value replaced by the median of the `size` x `size` window around it, each channel by itself; the border is repeated.

    An even window reaches one pixel further up and left and takes the upper median, as SciPy's median_filter does (feature squeezing uses 2).
    Differentiable almost everywhere: the gradient goes to the pixel that the median is. Memory: size^2 times the batch. Source: Xu et al.,
    NDSS 2018 (arXiv 1704.01155), section III.B.
    """
    _whole("median: size", size, 1, 15, 3)
    before, after = size // 2, (size - 1) // 2
    around = F.pad(x, (before, after, before, after), mode="replicate")
    windows = around.unfold(2, size, 1).unfold(3, size, 1).flatten(4)
    middle: Tensor = windows.kthvalue(size * size // 2 + 1, dim=4).values
    return middle


def total_variation(x: Tensor, *, noise: Noise, weight: float = 0.1, steps: int = 30) -> Tensor:
    """`steps` iterations towards argmin_u 1/2 |u - x|^2 + weight TV(u), each channel by itself (Rudin, Osher and Fatemi, 1992).

        p <- (p + tau grad u) / (1 + tau |grad u| / weight),   u = x + div p,   tau = 1/4

    (his p times the weight) with forward differences that are 0 past the border, p_0 = 0. Differentiable, through all steps. Kept in [0, 1]
    against rounding. Source: Chambolle, "An algorithm for total variation minimization and applications", 2004, eq. 9; convergence is proven
    for tau <= 1/8, and 1/4 is what he uses.
    """
    return smoothed(x, weight, steps).clamp(0.0, 1.0)


def smoothed(x: Tensor, weight: float, steps: int) -> Tensor:
    """The iteration of `total_variation`, without its last clamp."""
    _positive("total_variation: weight", weight, 0.1)
    _whole("total_variation: steps", steps, 1, 10_000, 30)
    tau = 0.25 / weight
    down, across = torch.zeros_like(x), torch.zeros_like(x)  # the dual variable, times the weight
    u = x
    for _ in range(steps):
        u_down = F.pad(u[:, :, 1:] - u[:, :, :-1], (0, 0, 0, 1))
        u_across = F.pad(u[:, :, :, 1:] - u[:, :, :, :-1], (0, 1))
        size = (u_down.square() + u_across.square() + 1e-24).sqrt()  # the constant only keeps the slope of the root finite
        down = (down + 0.25 * u_down) / (1.0 + tau * size)
        across = (across + 0.25 * u_across) / (1.0 + tau * size)
        u = x + down - F.pad(down[:, :, :-1], (0, 0, 1, 0)) + across - F.pad(across[:, :, :, :-1], (1, 0))
    return u


def uniform(x: Tensor, *, noise: Noise, eps: float = 8 / 255) -> Tensor:
    """`x` plus independent uniform noise of [-eps, eps] from `noise`, clipped to [0, 1]."""
    if not 0.0 <= eps <= 1.0:
        raise SpecError(f"uniform: got eps={eps!r}; 0 to 1, for example 8/255")
    return (x + noise.uniform(x, -eps, eps)).clamp(0.0, 1.0)


def _recoded(x: Tensor, write: partial[bytes]) -> Tensor:
    """Each picture of `x` rounded to 8 bits, written to a file in memory and read back."""
    modes = {1: "L", 3: "RGB"}
    if x.shape[1] not in modes:
        raise InputError(f"codec: got {x.shape[1]} channels; 1 (greyscale) or 3 (RGB), for example n 3 224 224")
    mode = modes[x.shape[1]]
    back = np.empty((len(x), x.shape[2], x.shape[3], x.shape[1]), dtype=np.uint8)
    pictures = levels(x.detach()).permute(0, 2, 3, 1).contiguous().cpu().numpy()
    for i, pixels in enumerate(pictures):
        picture = Image.fromarray(pixels.squeeze(2) if mode == "L" else pixels)
        with Image.open(io.BytesIO(write(picture))) as file:
            back[i] = np.asarray(file.convert(mode)).reshape(back[i].shape)
    return torch.from_numpy(back).permute(0, 3, 1, 2).to(device=x.device, dtype=x.dtype) / 255.0


def _file(picture: Image.Image, kind: str, quality: int, subsampling: str | None = None) -> bytes:
    held = io.BytesIO()
    if subsampling is None:
        picture.save(held, format=kind, quality=quality, method=4)
    else:
        picture.save(held, format=kind, quality=quality, subsampling=subsampling)
    return held.getvalue()


def _whole(where: str, given: int, low: int, high: int, example: int) -> None:
    if isinstance(given, bool) or not isinstance(given, int) or not low <= given <= high:
        raise SpecError(f"{where}: got {given!r}; a whole number from {low} to {high}, for example {example}")


def _positive(where: str, given: float, example: float) -> None:
    if isinstance(given, bool) or not isinstance(given, int | float) or not 0.0 < given < math.inf:
        raise SpecError(f"{where}: got {given!r}; a number above 0, for example {example}")
