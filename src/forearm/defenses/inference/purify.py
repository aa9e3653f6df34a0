"""Purifiers: channels of `core.channel` before a model, and what an attacker who knows differentiates.

What has a slope (blur, median, total variation) is differentiated as it is; what has none (codecs, rounding) gives the attacker who does not
know a gradient of zero, and the one who knows the gradient of the model at the purified picture, as if the purifier were the identity (BPDA).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from forearm.core import channel
from forearm.core.gradients import Classifier, bpda, eot, straight_through
from forearm.core.noise import Noise
from forearm.defenses.inference.hardened import Hardened
from forearm.errors import SpecError

COPIES = 20  # draws that the attacker who knows `noise` averages in each pass


def jpeg(model: nn.Module, *, quality: int = 75, subsampling: str = "4:2:0") -> nn.Module:
    """`model` on pictures that went through JPEG (`core.channel.jpeg`): `n c h w` in [0, 1] -> logits `n k`.

    Its gradient is zero. Raises SpecError for options that JPEG has not. Source: Guo et al., ICLR 2018. Cost: one pass, and a codec on the CPU.
    """
    return Hardened(model, Purifier(_flat(_jpeg(quality, subsampling))))


def through_jpeg(model: nn.Module, *, quality: int = 75, subsampling: str = "4:2:0") -> Classifier:
    """What an attacker who knows `jpeg` differentiates: its value, with the gradient of the model at the decoded picture. Cost: as `jpeg`."""
    return Hardened(model, Purifier(straight_through(_jpeg(quality, subsampling))))


def bit_depth(model: nn.Module, *, bits: int = 4) -> nn.Module:
    """`model` on pictures rounded to `bits` bits a channel (`core.channel.bit_depth`). Its gradient is zero. Source: Xu et al., NDSS 2018. Cost: one pass."""
    return Hardened(model, Purifier(_flat(_bit_depth(bits))))


def through_bit_depth(model: nn.Module, *, bits: int = 4) -> Classifier:
    """What an attacker who knows `bit_depth` differentiates: its value, with the gradient of the model at the rounded picture. Cost: one pass."""
    return Hardened(model, Purifier(straight_through(_bit_depth(bits))))


def median(model: nn.Module, *, size: int = 3) -> nn.Module:
    """`model` on median-filtered pictures (`core.channel.median`); an attacker who knows differentiates it as it is. Source: Xu et al., NDSS 2018.

    Cost: one pass.
    """
    return Hardened(model, Purifier(_checked(partial(_median, size=size))))


def gaussian(model: nn.Module, *, sigma: float = 1.0) -> nn.Module:
    """`model` on pictures blurred by a Gaussian of `sigma` pixels (`core.channel.blurred`), which it differentiates as it is. Cost: one pass."""
    return Hardened(model, Purifier(_checked(partial(channel.blurred, sigma=sigma))))


def total_variation(model: nn.Module, *, weight: float = 0.1, steps: int = 30) -> nn.Module:
    """`model` on pictures of less total variation (`core.channel.total_variation`), differentiated as it is, through all steps.

    Guo et al. (ICLR 2018) minimise it over a random half of the pixels; this is the plain denoiser of the same energy. Cost: one pass, `steps` filters.
    """
    return Hardened(model, Purifier(_checked(partial(_total_variation, weight=weight, steps=steps))))


def noise(model: nn.Module, *, eps: float = 8 / 255) -> nn.Module:
    """`model` on pictures plus uniform noise of [-eps, eps], not clipped, new in every pass, from torch's generator of the pictures' device.

    A module at test time knows no ids of examples: whoever measures it seeds and restores that generator. Raises SpecError for an eps outside
    of [0, 1]. After the random layer of Liu et al., ECCV 2018, at the pictures alone and uniform. Cost: one pass.
    """
    return Hardened(model, UniformNoise(eps))


def through_noise(model: nn.Module, *, eps: float = 8 / 255) -> Classifier:
    """What an attacker who knows `noise` differentiates: log of the mean probability of 20 draws, new in every pass (EOT). Cost: 20 passes, 40 with
    the gradient's forward passes.
    """
    return Averaged(noise(model, eps=eps))


class Purifier(nn.Module):
    """A function of pictures as a module."""

    def __init__(self, purify: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.purify = purify

    def forward(self, x: Tensor) -> Tensor:
        """`n c h w` -> the same shape."""
        return self.purify(x)


class UniformNoise(nn.Module):
    """x + U(-eps, eps); see `noise`."""

    def __init__(self, eps: float) -> None:
        super().__init__()
        if isinstance(eps, bool) or not isinstance(eps, int | float) or not 0.0 <= eps <= 1.0:
            raise SpecError(f"noise: got eps={eps!r}; 0 to 1, for example 8/255")
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        """`n c h w` -> the same shape."""
        return x + self.eps * (2.0 * torch.rand_like(x) - 1.0)


class Averaged(nn.Module):
    """`core.gradients.eot` of a model over `COPIES` draws."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        """`n c h w` -> log probabilities `n k`."""
        return eot(self.model, COPIES)(x)


def _jpeg(quality: int, subsampling: str) -> Callable[[Tensor], Tensor]:
    return _checked(partial(_quiet, travel=partial(channel.jpeg, quality=quality, subsampling=subsampling)))


def _bit_depth(bits: int) -> Callable[[Tensor], Tensor]:
    return _checked(partial(_quiet, travel=partial(channel.bit_depth, bits=bits)))


def _median(x: Tensor, size: int) -> Tensor:
    return _quiet(x, partial(channel.median, size=size))


def _total_variation(x: Tensor, weight: float, steps: int) -> Tensor:
    return channel.smoothed(x, weight, steps)


def _quiet(x: Tensor, travel: Callable[..., Tensor]) -> Tensor:
    """A channel that draws nothing."""
    return travel(x, noise=Noise.of(len(x)))


def _checked(purify: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`purify`, tried on one grey pixel, so that options are refused where they are given and not in the first pass."""
    purify(torch.full((1, 1, 1, 1), 0.5))
    return purify


def _flat(purify: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """`purify` with a gradient of zero, in one graph with its pictures."""
    return bpda(purify, _nothing)


def _nothing(x: Tensor) -> Tensor:
    return 0.0 * x
