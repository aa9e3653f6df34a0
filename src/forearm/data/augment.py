"""Augmentations for training: uint8 `n c h w` and a generator -> float `n c h w` in [0, 1]. Each picture gets its own draw."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from forearm.core.noise import Noise
from forearm.data.batches import Augment
from forearm.data.corruptions.challenge import challenge_augment
from forearm.errors import SpecError


def crop_flip(images: Tensor, generator: Generator, pad: int = 4) -> Tensor:
    """Mirror half of the pictures, then shift each by up to `pad` pixels over a reflected border."""
    x = flip(images.float() / 255.0, generator)
    n, c, h, w = x.shape
    padded = F.pad(x, (pad, pad, pad, pad), mode="reflect")
    top = torch.randint(0, 2 * pad + 1, (n, 1), generator=generator) + torch.arange(h)
    left = torch.randint(0, 2 * pad + 1, (n, 1), generator=generator) + torch.arange(w)
    rows = padded.gather(2, top[:, None, :, None].expand(n, c, h, w + 2 * pad))
    return rows.gather(3, left[:, None, None, :].expand(n, c, h, w))


def flip(x: Tensor, generator: Generator) -> Tensor:
    """Mirror half of the pictures from left to right."""
    mirrored = torch.rand(len(x), 1, 1, 1, generator=generator) < 0.5
    return torch.where(mirrored, x.flip(3), x)


def cutout(x: Tensor, generator: Generator, side: int = 8) -> Tensor:
    """A square of `side` pixels at a random place becomes grey (DeVries and Taylor, 2017)."""
    n, _, h, w = x.shape
    top = torch.randint(0, h - side + 1, (n, 1, 1, 1), generator=generator)
    left = torch.randint(0, w - side + 1, (n, 1, 1, 1), generator=generator)
    row, column = torch.arange(h).reshape(1, 1, h, 1), torch.arange(w).reshape(1, 1, 1, w)
    inside = (row >= top) & (row < top + side) & (column >= left) & (column < left + side)
    return x.masked_fill(inside, 0.5)


def crop_flip_cutout(images: Tensor, generator: Generator) -> Tensor:
    """Mirror, shift by up to 4 pixels, then a grey square of 8."""
    return cutout(crop_flip(images, generator), generator)


def crop_flip_colour(images: Tensor, generator: Generator) -> Tensor:
    """Mirror, shift by up to 4 pixels, colour jitter, then a grey square of 8."""
    return cutout(colour_jitter(crop_flip(images, generator), generator), generator)


def resized_crop(images: Tensor, generator: Generator, size: int, smallest: float = 0.35) -> Tensor:
    """A random part of each picture (area `smallest` to 1, aspect 3/4 to 4/3), resampled bilinearly to `size`, mirrored half the time."""
    n = len(images)
    area = smallest + (1.0 - smallest) * torch.rand(n, generator=generator)
    aspect = torch.exp(math.log(4 / 3) * (2.0 * torch.rand(n, generator=generator) - 1.0))
    wide = (area * aspect).sqrt().clamp_max(1.0)
    high = (area / aspect).sqrt().clamp_max(1.0)
    across = (2.0 * torch.rand(n, generator=generator) - 1.0) * (1.0 - wide)
    down = (2.0 * torch.rand(n, generator=generator) - 1.0) * (1.0 - high)
    mirrored = 1.0 - 2.0 * (torch.rand(n, generator=generator) < 0.5).float()
    zero = torch.zeros(n)
    theta = torch.stack([torch.stack([wide * mirrored, zero, across], 1), torch.stack([zero, high, down], 1)], 1)
    grid = F.affine_grid(theta, [n, 3, size, size], align_corners=False)
    x = (images.float() / 255.0).contiguous(memory_format=torch.channels_last)
    return F.grid_sample(x, grid, padding_mode="reflection", align_corners=False).clamp(0.0, 1.0)


def colour_jitter(x: Tensor, generator: Generator, strength: float = 0.3) -> Tensor:
    """Brightness, contrast and saturation, each multiplied by a factor of 1 - strength to 1 + strength."""
    factor = 1.0 + strength * (2.0 * torch.rand(3, len(x), 1, 1, 1, generator=generator) - 1.0)
    x = x * factor[0]
    x = x.mean((1, 2, 3), keepdim=True).lerp(x, factor[1])
    return x.mean(1, keepdim=True).lerp(x, factor[2]).clamp(0.0, 1.0)


def photo128(images: Tensor, generator: Generator) -> Tensor:
    """A random part of each photo at 128 x 128, mirrored half the time."""
    return resized_crop(images, generator, 128)


def photo128_colour(images: Tensor, generator: Generator) -> Tensor:
    """`photo128`, then colour jitter and a grey square of 32."""
    return cutout(colour_jitter(photo128(images, generator), generator), generator, 32)


def challenge(images: Tensor, generator: Generator) -> Tensor:
    """Mirror, shift by up to 4 pixels, then each of the challenge's 32 operations with probability 0.05 (`corruptions.challenge`)."""
    return _operated(crop_flip(images, generator), generator)


def challenge224(images: Tensor, generator: Generator) -> Tensor:
    """A random part of each photo at 224 x 224 (area 0.08 to 1, as published), mirrored half the time, then the challenge's 32 operations."""
    return _operated(resized_crop(images, generator, 224, 0.08), generator)


def _operated(x: Tensor, generator: Generator) -> Tensor:
    seed = int(torch.randint(0, 2**62, (), generator=generator))
    return challenge_augment(x, noise=Noise.of(len(x), seed))


AUGMENTS: dict[str, Augment] = {
    "challenge": challenge,
    "challenge224": challenge224,
    "crop_flip": crop_flip,
    "crop_flip_colour": crop_flip_colour,
    "crop_flip_cutout": crop_flip_cutout,
    "photo128": photo128,
    "photo128_colour": photo128_colour,
}


def augment(name: str) -> Augment:
    """An augmentation by name."""
    if name not in AUGMENTS:
        raise SpecError(f"augment: got {name!r}; one of {', '.join(AUGMENTS)}, for example 'crop_flip'")
    return AUGMENTS[name]
