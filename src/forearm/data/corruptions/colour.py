"""Colours and light."""

from __future__ import annotations

import torch
from torch import Tensor

from forearm.core.noise import Noise
from forearm.data.corruptions.fields import one
from forearm.data.corruptions.severity import index, strength

ORDERS = ((0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0))  # of three channels, but for the one that changes nothing


def rgb_shuffle(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` with its channels in one of the five other orders; greyscale stays as it is. All severities are the same.

    Source: arXiv 2205.10617, authors' code, where a sixth of the pictures keep their order.
    """
    index(severity)
    order = torch.tensor(ORDERS, device=x.device)[noise.integers(one(x), len(ORDERS))]
    return x if x.shape[1] == 1 else x.gather(1, order[:, :, None, None].expand(x.shape))


def contrast(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """m + c (x - m), m the mean of each channel. Source: CIFAR-10-C and ImageNet-C."""
    share = strength(x, severity, (0.75, 0.5, 0.4, 0.3, 0.15), (0.4, 0.3, 0.2, 0.1, 0.05))
    mean = x.mean((2, 3), keepdim=True)
    return (mean + share * (x - mean)).clamp(0.0, 1.0)


def brightness(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` with c added to its value in HSV: x v' / v, where v is the largest channel and v' = min(1, v + c); black becomes grey.

    Source: CIFAR-10-C and ImageNet-C.
    """
    more = strength(x, severity, (0.05, 0.10, 0.15, 0.20, 0.30), (0.1, 0.2, 0.3, 0.4, 0.5))
    value = x.amax(1, keepdim=True)
    brighter = (value + more).clamp_max(1.0)
    return torch.where(value > 0.0, x * (brighter / value.clamp_min(1e-12)), brighter).clamp(0.0, 1.0)


def saturate(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` with its saturation in HSV at s' = min(1, a s + b): v - (v - x) s' / s, where v is the largest channel; 1 and 2 fade, 3 to 5 deepen.

    Grey has no hue and stays grey (published with b > 0: it turns reddish, as its hue is stored as 0). Source: CIFAR-10-C and ImageNet-C.
    """
    times = strength(x, severity, (0.3, 0.1, 1.5, 2.0, 2.5), (0.3, 0.1, 2.0, 5.0, 20.0))
    more = strength(x, severity, (0.0, 0.0, 0.0, 0.1, 0.2))
    value = x.amax(1, keepdim=True)
    given = (value - x.amin(1, keepdim=True)) / value.clamp_min(1e-12)
    wanted = (times * given + more).clamp_max(1.0)
    ratio = torch.where(given > 0.0, wanted / given.clamp_min(1e-12), 1.0)
    return (value - (value - x) * ratio).clamp(0.0, 1.0)
