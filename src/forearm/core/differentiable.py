"""JPEG, and the colours that lossy codecs share between pixels, as functions that pass gradients: on any device, a batch at a time."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.errors import InputError, SpecError

SUBSAMPLINGS = {"4:4:4": (1, 1), "4:2:2": (1, 2), "4:2:0": (2, 2)}  # pixels that share one colour: down, across
BLOCK = 8
CENTRE = 128.0

_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55, 14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92, 49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99, 24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    *(99,) * 32,
)  # fmt: skip
_TO_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))  # ITU-T T.871, section 7

_BIAS = {  # what libjpeg adds before it rounds colours down, as it averages them and as it interpolates them: in even and odd columns
    "4:4:4": ((0.5, 0.5), (0.5, 0.5)),
    "4:2:2": ((0.0, 1 / 2), (1 / 4, 2 / 4)),
    "4:2:0": ((1 / 4, 2 / 4), (8 / 16, 7 / 16)),
}


def jpeg(x: Tensor, quality: int = 75, subsampling: str = "4:2:0") -> Tensor:
    """`x` (`n c h w` in [0, 1], c = 1 or 3) after baseline JPEG, with a gradient: libjpeg's pixels but for a level here and there.

        YCbCr in 8 bits;  colours averaged over 2 x 2;  8 x 8 DCT;  q round(coefficient / q);  back, colours interpolated linearly

    with the tables q of ITU-T T.81, annex K, scaled by `quality` (1 to 100) as libjpeg scales them; `subsampling` is "4:4:4", "4:2:2" or
    "4:2:0", without meaning for greyscale. Rounding and clipping pass gradients as the identity does (straight through: Bengio et al., arXiv
    1308.3432). The DCT being orthogonal, the gradient is then that of `shared_colours`. We depart from Shin and Song (NIPS 2017 workshop), who
    round with a cubic: its slope is 0 where a coefficient is 0, as most are, and one step of a sign then sees little of the picture.
    SpecError for another option, InputError for other channels. Cost: no pass of a model; memory about 12 times the batch.
    """
    if isinstance(quality, bool) or not isinstance(quality, int) or not 1 <= quality <= 100:
        raise SpecError(f"jpeg: got quality={quality!r}; a whole number from 1 to 100, for example 75")
    down, across = _shares(x, subsampling)
    if x.shape[1] == 1:
        return _levels(_coded(_rounded(255.0 * x), _LUMA, quality)) / 255.0
    turn = _turn(x)
    ycc = _rounded(_turned(255.0 * x, turn) + _offset(x))
    fewer, more = _BIAS[subsampling]
    colours = _coded(_whole(_averaged(ycc[:, 1:], down, across), fewer), _CHROMA, quality)
    pixels = torch.cat([_coded(ycc[:, :1], _LUMA, quality), _whole(_spread(colours, x, down, across), more)], 1)
    return _levels(_turned(pixels - _offset(x), turn.inverse())) / 255.0


def shared_colours(x: Tensor, subsampling: str = "4:2:0") -> Tensor:
    """`x` (`n c h w`) with its colours (Cb, Cr) averaged over groups of pixels and interpolated back linearly, its luma as it is.

    Linear, so it is its own derivative; greyscale (c = 1) stays as it is. Not clipped: values may leave the range of `x`. What JPEG and WebP do
    to a small change at high quality is mostly this. Errors as of `jpeg`.
    """
    down, across = _shares(x, subsampling)
    if x.shape[1] == 1:
        return x
    turn = _turn(x)
    ycc = _turned(x, turn)
    colours = _spread(_averaged(ycc[:, 1:], down, across), x, down, across)
    return _turned(torch.cat([ycc[:, :1], colours], 1), turn.inverse())


def _shares(x: Tensor, subsampling: str) -> tuple[int, int]:
    if subsampling not in SUBSAMPLINGS:
        raise SpecError(f"jpeg: got subsampling={subsampling!r}; one of {', '.join(SUBSAMPLINGS)}, for example '4:2:0'")
    if x.shape[1] not in (1, 3):
        raise InputError(f"jpeg: got {x.shape[1]} channels; 1 (greyscale) or 3 (RGB), for example n 3 224 224")
    return SUBSAMPLINGS[subsampling]


def _straight(value: Tensor, through: Tensor) -> Tensor:
    """`value` with the gradient of `through`."""
    return value.detach() + (through - through.detach())


def _rounded(x: Tensor) -> Tensor:
    return _straight(x.round(), x)


def _whole(x: Tensor, bias: tuple[float, float]) -> Tensor:
    """`x` plus one bias in even columns and the other in odd ones, rounded down."""
    columns = torch.arange(x.shape[3], device=x.device) % 2 == 0
    return _straight((x + torch.where(columns, *bias)).floor(), x)


def _levels(x: Tensor) -> Tensor:
    return _straight(x.round().clamp(0.0, 255.0), x)


def _turn(like: Tensor) -> Tensor:
    return torch.tensor(_TO_YCC, dtype=like.dtype, device=like.device)


def _offset(like: Tensor) -> Tensor:
    return torch.tensor([0.0, CENTRE, CENTRE], dtype=like.dtype, device=like.device).reshape(1, 3, 1, 1)


def _turned(x: Tensor, turn: Tensor) -> Tensor:
    """Every pixel's three values times a 3 x 3 matrix."""
    return F.conv2d(x, turn.reshape(3, 3, 1, 1))


def _averaged(colours: Tensor, down: int, across: int) -> Tensor:
    """The mean of each group of `down` x `across` pixels; the edge is repeated outwards where groups are not full."""
    height, width = colours.shape[2:]
    return F.avg_pool2d(F.pad(colours, (0, -width % across, 0, -height % down), mode="replicate"), (down, across))


def _spread(colours: Tensor, x: Tensor, down: int, across: int) -> Tensor:
    """Colours at the size of `x` again, weights 3/4 and 1/4 between neighbours: libjpeg's "fancy upsampling"."""
    if down == across == 1:
        return colours
    return F.interpolate(colours, scale_factor=(down, across), mode="bilinear", align_corners=False)[:, :, : x.shape[2], : x.shape[3]]


def _coded(plane: Tensor, table: tuple[int, ...], quality: int) -> Tensor:
    """Planes `n c h w` in levels through the quantised DCT of 8 x 8 blocks, each plane by itself."""
    n, c, height, width = plane.shape
    padded = F.pad(plane, (0, -width % BLOCK, 0, -height % BLOCK), mode="replicate") - CENTRE
    rows, columns = padded.shape[2] // BLOCK, padded.shape[3] // BLOCK
    blocks = padded.reshape(n, c, rows, BLOCK, columns, BLOCK).transpose(3, 4)
    basis, step = _basis(plane), _steps(table, quality, plane)
    coefficients = _rounded(basis @ blocks @ basis.T / step) * step
    back = (basis.T @ coefficients @ basis).transpose(3, 4).reshape(padded.shape) + CENTRE
    return _levels(back[:, :, :height, :width])


def _basis(like: Tensor) -> Tensor:
    """The orthonormal DCT-II of 8 points, a row a frequency (T.81, annex A.3.3)."""
    k = torch.arange(BLOCK, dtype=torch.float64)
    rows = torch.cos(math.pi * (2.0 * k + 1.0) * k[:, None] / (2 * BLOCK)) * math.sqrt(2.0 / BLOCK)
    rows[0] /= math.sqrt(2.0)
    return rows.to(like)


def _steps(table: tuple[int, ...], quality: int, like: Tensor) -> Tensor:
    """The quantisation steps at `quality`: libjpeg's jpeg_quality_scaling, in integers."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    steps = [min(255, max(1, (step * scale + 50) // 100)) for step in table]
    return torch.tensor(steps, dtype=like.dtype, device=like.device).reshape(BLOCK, BLOCK)
