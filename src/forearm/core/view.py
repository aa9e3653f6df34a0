"""How a model sees a picture of another size: a differentiable, antialiased resize as two matrix products."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from forearm.core.gradients import Classifier


def resize_matrix(inner: int, outer: int) -> Tensor:
    """The antialiased bilinear resize of `inner` to `outer` samples as a float64 matrix `outer inner`, rows summing to 1.

    A triangle of half-width max(1, inner / outer) around each output's centre: Pillow's BILINEAR, and torch's bilinear with antialias=True.
    """
    scale = inner / outer
    centre = (torch.arange(outer, dtype=torch.float64) + 0.5) * scale
    distance = (torch.arange(inner, dtype=torch.float64) + 0.5 - centre[:, None]).abs() / max(1.0, scale)
    weight = (1.0 - distance).clamp_min(0.0)
    return weight / weight.sum(1, keepdim=True)


def view_size(height: int, width: int, side: int, longest: float = 4.0) -> tuple[int, int]:
    """The shorter edge becomes `side`, the other keeps the aspect, up to `longest` times `side` (then the picture is squeezed)."""
    short = min(height, width)
    cap = int(longest * side)
    return min(cap, max(side, round(height * side / short))), min(cap, max(side, round(width * side / short)))


@dataclass(frozen=True, slots=True)
class View:
    """`model` looking at pictures of one size through a resize to `rows.shape[0]` x `columns.shape[0]`; greyscale is repeated to RGB."""

    model: Classifier
    rows: Tensor  # view's height x picture's height
    columns: Tensor  # view's width x picture's width

    @classmethod
    def of(cls, model: Classifier, height: int, width: int, side: int) -> View:
        """The view of `height` x `width` pictures for a model that was trained on pictures of `side`."""
        high, wide = view_size(height, width, side)
        return cls(model, resize_matrix(height, high).float(), resize_matrix(width, wide).float())

    @property
    def size(self) -> tuple[int, int]:
        return len(self.rows), len(self.columns)

    def see(self, x: Tensor) -> Tensor:
        """`n c h w` -> `n 3 rows columns`: what the model is given."""
        if self.rows.shape[0] == self.rows.shape[1] and self.columns.shape[0] == self.columns.shape[1]:
            seen = x
        else:
            seen = self.rows.to(x) @ (x @ self.columns.to(x).T)
        return seen if seen.shape[1] == 3 else seen.expand(-1, 3, -1, -1)

    def __call__(self, x: Tensor) -> Tensor:
        return self.model(self.see(x))
