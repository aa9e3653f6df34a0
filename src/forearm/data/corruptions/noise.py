"""Noise of single pixels and single values."""

from __future__ import annotations

import torch
from torch import Tensor

from forearm.core.noise import Noise
from forearm.data.corruptions.severity import strength


def pepper_salt(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` with a share of its pixels white or black, half each: 0.25, 0.5, 1, 2 or 4 % (published: 1 %). Source: arXiv 2205.10617, authors' code."""
    share = strength(x, severity, (0.0025, 0.005, 0.01, 0.02, 0.04))
    u = noise.uniform(x[:, :1])
    return x.masked_fill(u < share, 0.0).masked_fill(u < share / 2, 1.0)


def colour_points(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` with a share of its pixels pure green, red or blue, or of a random colour, a quarter each: 0.25 to 4 % as `pepper_salt`.

    In greyscale all are of a random grey. Source: arXiv 2205.10617, authors' code (1 %).
    """
    share = strength(x, severity, (0.0025, 0.005, 0.01, 0.02, 0.04))
    hit = noise.uniform(x[:, :1]) < share
    kind = noise.integers(x[:, :1], 4)
    colour = noise.uniform(x)
    if x.shape[1] == 3:
        pure = (kind == torch.arange(3, device=x.device).reshape(1, 3, 1, 1)).to(x.dtype)
        colour = torch.where(kind == 3, colour, pure)
    return torch.where(hit, colour, x)


def gaussian_noise(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """x + sd z, z standard normal for each value. Source: CIFAR-10-C and ImageNet-C; the challenge draws sd up to 0.15."""
    sd = strength(x, severity, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38))
    return (x + sd * noise.normal(x)).clamp(0.0, 1.0)


def shot_noise(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """Poisson(c x) / c for each value: what a sensor counts of c photons. Source: CIFAR-10-C and ImageNet-C."""
    photons = strength(x, severity, (500.0, 250.0, 100.0, 75.0, 50.0), (60.0, 25.0, 12.0, 5.0, 3.0))
    counts = poisson(photons * x.to(torch.float64), noise.normal(x.to(torch.float64)))
    return (counts / photons).clamp_max(1.0).to(x.dtype)


def poisson(mean: Tensor, z: Tensor) -> Tensor:
    """The Poisson quantile of each `mean` (float64) at the level Phi(z), z standard normal: the least k with P(X <= k) >= Phi(z).

    Cornish and Fisher's third-order guess, m + s z + (z^2 - 1) / 6 + (z - z^3) / 72 s with s^2 = m, is put right by the distribution itself, up to six
    steps either way (means above 0.01 need one, rare draws two).
    """
    mean = mean.clamp_min(1e-9)
    level, s = torch.special.ndtr(z), mean.sqrt()
    correction = (z**2 - 1.0) / 6.0 + (z - z**3) / (72.0 * s.clamp_min(1.0))
    k = (mean + s * z + correction - 0.5).ceil().clamp_min(0.0)
    below = torch.special.gammaincc(k + 1.0, mean)  # P(X <= k)
    chance = torch.exp(k * mean.log() - mean - torch.lgamma(k + 1.0))
    for _ in range(6):
        down = (k > 0.0) & (below - chance >= level)
        if not bool(down.any()):
            break
        below, chance = torch.where(down, below - chance, below), torch.where(down, chance * k / mean, chance)
        k = k - down.to(k.dtype)
    for _ in range(6):
        up = below < level
        if not bool(up.any()):
            break
        k = k + up.to(k.dtype)
        chance = torch.where(up, chance * mean / k.clamp_min(1.0), chance)
        below = torch.where(up, below + chance, below)
    return k


def impulse_noise(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """`x` with a share of its values 0 or 1, half each, every channel by itself. Source: CIFAR-10-C and ImageNet-C."""
    share = strength(x, severity, (0.01, 0.02, 0.03, 0.05, 0.07), (0.03, 0.06, 0.09, 0.17, 0.27))
    u = noise.uniform(x)
    return x.masked_fill(u < share, 0.0).masked_fill(u < share / 2, 1.0)


def speckle_noise(x: Tensor, *, noise: Noise, severity: int = 3) -> Tensor:
    """x + sd x z, z standard normal for each value. Source: CIFAR-10-C and ImageNet-C."""
    sd = strength(x, severity, (0.06, 0.10, 0.12, 0.16, 0.20), (0.15, 0.20, 0.35, 0.45, 0.60))
    return (x + sd * x * noise.normal(x)).clamp(0.0, 1.0)
