"""The point that an attack will return: the worst for the model so far, or the smallest that wins."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from forearm.attacks.gradient import margins
from forearm.core.gradients import Classifier
from forearm.core.threat import Threat


@dataclass(frozen=True, slots=True)
class Best:
    """Of each example, the point with the highest margin of all that were scored;

    the tensors are its own and are written in place.
    """

    x_adv: Tensor  # n c h w
    margin: Tensor  # n; minus infinity where nothing was scored yet

    @classmethod
    def of(cls, x: Tensor) -> Best:
        """Nothing scored yet."""
        return cls(x.clone(), x.new_full((len(x),), float("-inf")))

    def take(self, index: Tensor, x_adv: Tensor, margin: Tensor) -> None:
        """Score the points `x_adv` of the examples `index` (positions, `m`)."""
        wins = (margin > self.margin[index]) | (self.margin[index] == float("-inf"))
        self.x_adv[index[wins]] = x_adv[wins]
        self.margin[index[wins]] = margin[wins].to(self.margin.dtype)

    def unsolved(self) -> Tensor:
        """The positions of the examples that are not won yet."""
        return (self.margin <= 0).nonzero().squeeze(1)


@dataclass(frozen=True, slots=True)
class Smallest:
    """Of each example, the smallest change that wins, and the point with the highest margin for where none does."""

    x: Tensor  # the clean pictures
    x_adv: Tensor
    distance: Tensor  # n; infinity where nothing has won yet
    near: Best
    threat: Threat

    @classmethod
    def of(cls, x: Tensor, threat: Threat) -> Smallest:
        """Nothing scored yet."""
        return cls(x, x.clone(), x.new_full((len(x),), float("inf")), Best.of(x), threat)

    def take(self, index: Tensor, x_adv: Tensor, margin: Tensor) -> Tensor:
        """Score the points `x_adv` of the examples `index` (positions, `m`); returns which of them won (`m`)."""
        distance = self.threat.distance(x_adv, self.x[index])
        won = margin > 0
        wins = won & (distance < self.distance[index])
        self.x_adv[index[wins]] = x_adv[wins]
        self.distance[index[wins]] = distance[wins]
        self.near.take(index, x_adv, margin)
        return won

    def finish(self, model: Classifier, y: Tensor) -> Tensor:
        """The smallest success if it lies in the ball, otherwise the better of it and the highest margin, projected.

        Cost: two forward passes.
        """
        far = self.threat.project(self.near.x_adv, self.x)
        close = self.threat.project(torch.where(self._flags(self.distance.isfinite()), self.x_adv, far), self.x)
        better = margins(model, far, y, self.threat) > margins(model, close, y, self.threat)
        inside = self.distance <= self.threat.eps
        return torch.where(self._flags(better & ~inside), far, close)

    def _flags(self, flags: Tensor) -> Tensor:
        return flags.reshape(-1, *([1] * (self.x.ndim - 1)))
