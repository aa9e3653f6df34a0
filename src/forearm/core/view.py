"""How a model sees a picture of another size: through a differentiable, antialiased resize."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from forearm.core.gradients import Classifier
from forearm.errors import InputError


def resize(x: Tensor, size: tuple[int, int]) -> Tensor:
    """`n c h w` -> `n c *size`, antialiased bilinear (a triangle as wide as the scale; Pillow's BILINEAR). Stays in the range of x."""
    if tuple(x.shape[2:]) == size:
        return x
    return F.interpolate(x, size, mode="bilinear", antialias=True)


def view_size(height: int, width: int, side: int, longest: float = 4.0) -> tuple[int, int]:
    """The shorter edge becomes `side`, the other keeps the aspect, up to `longest` times `side` (then the picture is squeezed)."""
    short = min(height, width)
    cap = int(longest * side)
    return min(cap, max(side, round(height * side / short))), min(cap, max(side, round(width * side / short)))


@dataclass(frozen=True, slots=True)
class View:
    """`model` looking at pictures of any size resized to `size`; greyscale is repeated to the model's `channels`.

    Gradients reach the picture's own pixels. InputError for colour pictures before a model of greyscale ones.
    """

    model: Classifier
    size: tuple[int, int]
    channels: int = 3

    @classmethod
    def of(cls, model: Classifier, height: int, width: int, side: int) -> View:
        """The view of `height` x `width` pictures for a model that was trained on pictures of `side`."""
        return cls(model, view_size(height, width, side))

    def see(self, x: Tensor) -> Tensor:
        """`n c h w` -> `n channels *size`: what the model is given."""
        if x.shape[1] not in (1, self.channels):
            raise InputError(f"view: got pictures of {x.shape[1]} channels for a model of {self.channels}; 1 or {self.channels}")
        seen = resize(x, self.size)
        return seen if seen.shape[1] == self.channels else seen.expand(-1, self.channels, -1, -1)

    def __call__(self, x: Tensor) -> Tensor:
        return self.model(self.see(x))
