"""Random resize-and-pad (Xie et al., ICLR 2018), in the form of the gradient concealment challenge (Pei et al., arXiv 2205.10617, 2022)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.core.gradients import Classifier, expectation
from forearm.defenses.inference.hardened import Hardened
from forearm.errors import InputError, SpecError

PUBLISHED = 218 / 224


@dataclass(frozen=True, slots=True)
class Placing:
    """One configuration: `gap` pixels taken from each edge, the picture put `top` and `left` pixels from the corner; `chance`: its probability."""

    gap: int
    top: int
    left: int
    chance: float

    def __call__(self, x: Tensor) -> Tensor:
        """`n c h w` -> the same shape: resized to h - gap, w - gap (nearest), zeros around it. Differentiable."""
        small = F.interpolate(x, (x.shape[2] - self.gap, x.shape[3] - self.gap), mode="nearest")
        return F.pad(small, (self.left, self.gap - self.left, self.top, self.gap - self.top))


def placings(height: int, width: int, least: float = PUBLISHED) -> list[Placing]:
    """Every configuration of a `height` x `width` picture with its probability, which sum to 1: 91 at 224 pixels.

    The gap is uniform in 1 to D, D = side - round(least side) for the shorter edge, at least 1; the place is uniform in {0, ..., gap - 1}^2: the published
    draw leaves out its upper end, so the right and lower edges always keep a zero. Raises InputError for pictures of less than 2 pixels.
    """
    side = min(height, width)
    if side < 2:
        raise InputError(f"resize_pad: got {width} x {height} pixels; 2 or more an edge, for example 224 x 224")
    most = min(side - 1, max(1, side - round(least * side)))
    return [Placing(gap, top, left, 1.0 / (most * gap * gap)) for gap in range(1, most + 1) for top in range(gap) for left in range(gap)]


def resize_pad(model: nn.Module, *, least: float = PUBLISHED) -> nn.Module:
    """`model` on pictures that are shrunk by a random amount and padded with zeros at a random place: `n c h w` -> logits `n k`.

    Side l uniform in {218, ..., 223} of 224, resized by nearest, padded to 224 at a uniform place (`placings`); `least` is the smallest side over the
    whole, in (0, 1). One draw a batch, as published, also in eval mode, from torch's CPU generator: a module at test time knows no ids of examples,
    so whoever measures it seeds and restores that generator, and results depend on the batch. We shrink both edges of a picture that is not square
    by the same number of pixels. The published ratio leaves a picture of 32 pixels a single configuration; least=26/32 gives it 91. Raises
    SpecError for another `least`. An attacker who knows differentiates the exact mean over all configurations (`expected`). Cost: one pass.
    """
    return Hardened(model, RandomPlacing(_ratio(least)))


def expected(model: nn.Module, *, least: float = PUBLISHED) -> Classifier:
    """What an attacker who knows differentiates: log of the mean probability over every configuration, weighted by its chance (exact EOT).

    Cost: a pass per configuration (91), and one more for the gradient, with the memory of one.
    """
    return Expected(model, _ratio(least))


class RandomPlacing(nn.Module):
    """One configuration for the whole batch, drawn from torch's CPU generator; see `resize_pad`."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        """`n c h w` -> the same shape."""
        choices = placings(x.shape[2], x.shape[3], self.least)
        most = choices[-1].gap
        gap = int(torch.randint(1, most + 1, ()))
        top, left = torch.randint(0, gap, (2,)).tolist()
        return Placing(gap, top, left, 1.0 / (most * gap * gap))(x)


class Expected(nn.Module):
    """The exact mean of a model over `placings`; see `expected`."""

    def __init__(self, model: nn.Module, least: float) -> None:
        super().__init__()
        self.model = model
        self.least = least

    def forward(self, x: Tensor) -> Tensor:
        """`n c h w` -> log probabilities `n k`."""
        choices = placings(x.shape[2], x.shape[3], self.least)
        models = [Hardened(self.model, At(placing)) for placing in choices]
        return expectation(models, [placing.chance for placing in choices])(x)


class At(nn.Module):
    """A configuration as a module."""

    def __init__(self, placing: Placing) -> None:
        super().__init__()
        self.placing = placing

    def forward(self, x: Tensor) -> Tensor:
        """`n c h w` -> the same shape."""
        return self.placing(x)


def _ratio(least: float) -> float:
    if isinstance(least, bool) or not isinstance(least, int | float) or not 0.0 < least < 1.0:
        raise SpecError(f"resize_pad: got least={least!r}; a ratio between 0 and 1, for example 218/224")
    return least
