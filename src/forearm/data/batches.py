"""Labelled pictures in memory, and the batches that training takes from them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pictures:
    """A labelled set: `images` uint8 `n c h w` (RGB, or one channel for greyscale sets), `labels` int64 `n`, and the names of the classes.

    The pixels are held in memory; the readers of large sets decode only what is asked for and refuse more than `photos.MOST` bytes.
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def first(self, n: int | None) -> Pictures:
        """The first `n` pictures, or all of them."""
        return self if n is None else Pictures(self.images[:n], self.labels[:n], self.classes)

    def batches(self, size: int) -> Iterator[Batch]:
        """All pictures in order, as float RGB in [0, 1]."""
        for i in range(0, len(self), size):
            images = self.images[i : i + size]
            yield Batch(images.float() / 255.0, self.labels[i : i + size], torch.arange(i, i + len(images)))


@dataclass(frozen=True, slots=True)
class Batch:
    """`x` float `n c h w` in [0, 1], `y` int64 `n`, `ids` int64 `n` (positions in the data set)."""

    x: Tensor
    y: Tensor
    ids: Tensor

    def to(self, device: torch.device) -> Batch:
        """The batch on a device, without waiting for the copy."""
        return Batch(self.x.to(device, non_blocking=True), self.y.to(device, non_blocking=True), self.ids.to(device, non_blocking=True))


Augment = Callable[[Tensor, torch.Generator], Tensor]  # uint8 or float `n c h w` -> float `n c h w` in [0, 1]


@dataclass(frozen=True, slots=True)
class Shuffled:
    """Training batches: epoch `e` has its own order and augmentation, a function of (seed, e) alone, so a run resumes exactly."""

    pictures: Pictures
    size: int
    augment: Augment
    seed: int = 0

    def __len__(self) -> int:
        """Batches an epoch; the last incomplete one is left out."""
        return len(self.pictures) // self.size

    def epoch(self, number: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(self.seed * 100_003 + number)
        order = torch.randperm(len(self.pictures), generator=generator)
        for i in range(len(self)):
            ids = order[i * self.size : (i + 1) * self.size]
            yield Batch(self.augment(self.pictures.images[ids], generator), self.pictures.labels[ids], ids)
