"""Rain, fog, frost, snow and what splashes on a lens, each drawn from noise alone: no pictures are needed."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.core.channel import blurred
from forearm.core.noise import Noise
from forearm.data.corruptions.blur import filtered
from forearm.data.corruptions.fields import dragged, each, one, plasma, smooth
from forearm.data.corruptions.severity import index, length, strength

WATER = (175 / 255, 238 / 255, 238 / 255)  # pale turquoise
MUD = (63 / 255, 42 / 255, 20 / 255)
ICE = ((0.45, 0.58, 0.72), (0.93, 0.97, 1.0))  # in the hollows and on the ridges
LUMA = (0.299, 0.587, 0.114)


def rain(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """Streaks r over `x`: (1 - r) x + beta r, beta uniform in [0.7, 1]; their direction within 30 degrees of the vertical.

    Drops fall on 2 to 5.9 % of the pixels at 224 (as published) and are dragged over 10 pixels; at 32 on 1.5 to 4 % and over 4. r is the sum of the
    streaks at a pixel divided by 3 (at 32: by 2), at most 1; published: by its largest value in the picture, which makes dense rain faint.
    Source: arXiv 2205.10617, authors' code.
    """
    share = strength(x, severity, (0.015, 0.02, 0.026, 0.033, 0.04), (0.0195, 0.0292, 0.039, 0.0488, 0.0586))
    reach = max(1, math.ceil((length(x, severity, (4.0,) * 5, (10.0,) * 5) - 1.0) / 2.0))
    faint = strength(x, severity, (2.0,) * 5, (3.0,) * 5)
    margin = 2 * reach
    drops = noise.uniform(x.new_empty(len(x), 1, x.shape[2] + 2 * margin, x.shape[3] + 2 * margin))
    drops = ((drops < share) * (1.0 - 0.1 * drops / share)).to(x.dtype)
    streaks = dragged(drops, 90.0 + noise.uniform(one(x), -30.0, 30.0), reach, 1e6)[:, :, margin:-margin, margin:-margin]
    streaks = (streaks * ((2 * reach + 1) / faint)).clamp_max(1.0)
    return x.lerp(each(noise.uniform(one(x), 0.7, 1.0)).expand_as(x), streaks.expand_as(x)).clamp(0.0, 1.0)


def fog(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """(x + c clouds) m / (m + c), the clouds `fields.plasma`, m the largest value of `x`. Source: CIFAR-10-C and ImageNet-C."""
    amount = strength(x, severity, (0.2, 0.5, 0.75, 1.0, 1.5), (1.5, 2.0, 2.5, 2.5, 3.0))
    decay = strength(x, severity, (3.0, 3.0, 2.5, 2.0, 1.75), (2.0, 2.0, 1.7, 1.5, 1.4))
    most = x.amax((1, 2, 3), keepdim=True)
    return ((x + amount * plasma(x, noise, decay)) * most / (most + amount)).clamp(0.0, 1.0)


def frost(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """a x + b ice. Source: CIFAR-10-C and ImageNet-C, whose ice is six photographs.

    Here it is drawn, so results are not those on the published set: needles, sparse white noise dragged along three directions 60 degrees apart, of
    which the strongest counts, and a haze, white on the ridges 1 - |2 p - 1| of rough clouds p; both denser where smoother clouds are.
    """
    keep = strength(x, severity, (1.0, 1.0, 0.9, 0.85, 0.75), (1.0, 0.8, 0.7, 0.65, 0.6))
    amount = strength(x, severity, (0.2, 0.3, 0.4, 0.4, 0.45), (0.4, 0.6, 0.7, 0.7, 0.75))
    share = strength(x, severity, (0.04,) * 5, (0.012,) * 5)
    reach = length(x, severity, (2.0,) * 5, (9.0,) * 5)
    cover = ((plasma(x, noise, 1.7) - 0.25) / 0.4).clamp(0.0, 1.0)
    ridge = (1.0 - (2.0 * plasma(x, noise, 1.35) - 1.0).abs()) ** 2
    seeds = (noise.uniform(x[:, :1]) < share).to(x.dtype)
    turn = noise.uniform(one(x), 0.0, 60.0)
    needles = torch.stack([dragged(seeds, turn + angle, reach, reach) for angle in (0.0, 60.0, 120.0)]).amax(0)
    needles = (needles * (1.25 * reach)).clamp_max(1.0)
    low, high = (_colour(x, colour) for colour in ICE)
    ice = (0.2 + 0.8 * cover) * (low + (high - low) * torch.maximum(0.6 * ridge, needles)) * (0.4 + 0.6 * torch.maximum(ridge, needles))
    return (keep * x + amount * ice).clamp(0.0, 1.0)


def snow(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """w x + (1 - w) max(x, 1.5 grey(x) + 0.5) + flakes + the flakes turned by 180 degrees.

    The flakes are normal noise, enlarged, what is below a floor taken away, and dragged downwards. Source: CIFAR-10-C and ImageNet-C.
    """
    mean = strength(x, severity, (0.1, 0.1, 0.15, 0.25, 0.3), (0.1, 0.2, 0.55, 0.55, 0.55))
    sd = strength(x, severity, (0.2, 0.2, 0.3, 0.3, 0.3), (0.3, 0.3, 0.3, 0.3, 0.3))
    zoom = strength(x, severity, (1.0, 1.0, 1.75, 2.25, 1.25), (3.0, 2.0, 4.0, 4.5, 2.5))
    floor = strength(x, severity, (0.6, 0.5, 0.55, 0.6, 0.65), (0.5, 0.5, 0.9, 0.85, 0.85))
    radius = length(x, severity, (8.0, 10.0, 10.0, 12.0, 14.0), (10.0, 12.0, 12.0, 12.0, 12.0))
    sigma = length(x, severity, (3.0, 3.0, 4.0, 6.0, 12.0), (4.0, 4.0, 8.0, 8.0, 12.0))
    keep = strength(x, severity, (0.95, 0.9, 0.9, 0.85, 0.8), (0.8, 0.7, 0.7, 0.65, 0.55))
    h, w = x.shape[2:]
    part = x.new_empty(len(x), 1, math.ceil(h / zoom), math.ceil(w / zoom))
    flakes = F.interpolate(mean + sd * noise.normal(part), (h, w), mode="bilinear", align_corners=True)
    flakes = flakes.masked_fill(flakes < floor, 0.0).clamp(0.0, 1.0)
    flakes = dragged(flakes, noise.uniform(one(x), -135.0, -45.0), radius, sigma)
    grey = (x * _colour(x, LUMA)).sum(1, keepdim=True) if x.shape[1] == 3 else x
    white = keep * x + (1.0 - keep) * torch.maximum(x, 1.5 * grey + 0.5)
    return (white + flakes + flakes.flip(2, 3)).clamp(0.0, 1.0)


def spatter(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """Drops of water on the lens (1 to 3), or mud (4 and 5). Source: CIFAR-10-C and ImageNet-C.

    Drops are where blurred normal noise exceeds a floor. Mud: x (1 - m) + m brown, m the blurred drops where above 0.8. Water: x + m turquoise, m the
    drops times a relief of their blurred shape, divided by its largest value, times a height; the published relief (Canny edges, a distance
    transform, histogram equalisation) is replaced by the same embossing of a plain blur.
    """
    mean = strength(x, severity, (0.62, 0.65, 0.65, 0.65, 0.65), (0.65, 0.65, 0.65, 0.65, 0.67))
    sd = strength(x, severity, (0.1, 0.1, 0.3, 0.1, 0.1), (0.3, 0.3, 0.3, 0.3, 0.4))
    sigma = length(x, severity, (0.7, 0.8, 1.0, 0.7, 0.5), (4.0, 3.0, 2.0, 1.0, 1.0))
    floor = strength(x, severity, (0.7, 0.7, 0.69, 0.69, 0.68), (0.69, 0.68, 0.68, 0.65, 0.65))
    last = strength(x, severity, (0.5, 0.5, 0.5, 0.6, 0.6), (0.6, 0.6, 0.5, 1.5, 1.5))
    liquid = mean + sd * smooth(x, noise, sigma, normal=True)
    wet = (liquid > floor).to(torch.float64)
    if index(severity) > 2:
        mud = blurred(wet, length(x, severity, (0.6,) * 5, (1.5,) * 5))
        mud = mud.masked_fill(mud < 0.8, 0.0).to(x.dtype)
        return (x * (1.0 - mud) + mud * _colour(x, MUD)).clamp(0.0, 1.0)
    emboss = torch.tensor([[2.0, 1.0, 0.0], [1.0, 1.0, -1.0], [0.0, -1.0, -2.0]], dtype=torch.float64)
    relief = wet * filtered(blurred(wet, 1.0), emboss).clamp_min(0.0)
    drops = (last * relief / relief.amax((1, 2, 3), keepdim=True).clamp_min(1e-6)).to(x.dtype)
    return (x + drops * _colour(x, WATER)).clamp(0.0, 1.0)


def _colour(x: Tensor, rgb: tuple[float, float, float]) -> Tensor:
    """`rgb` as `1 3 1 1`; for greyscale its luma, `1 1 1 1`."""
    known = torch.tensor(rgb, dtype=x.dtype, device=x.device).reshape(1, 3, 1, 1)
    if x.shape[1] == 3:
        return known
    return (known * torch.tensor(LUMA, dtype=x.dtype, device=x.device).reshape(1, 3, 1, 1)).sum(1, keepdim=True)
