"""Adam (Kingma and Ba, ICLR 2015) as a value: the moments of one tensor whose entries do not depend on each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FIRST, SECOND, SMALL = 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True)
class Adam:
    """The running moments after `steps` steps."""

    mean: Tensor
    square: Tensor
    steps: int = 0

    @classmethod
    def at(cls, like: Tensor) -> Adam:
        """Before the first step."""
        return cls(torch.zeros_like(like), torch.zeros_like(like))

    def step(self, gradient: Tensor) -> tuple[Adam, Tensor]:
        """The moments after `gradient`, and the move to take off (times the rate)."""
        k = self.steps + 1
        mean = FIRST * self.mean + (1.0 - FIRST) * gradient
        square = SECOND * self.square + (1.0 - SECOND) * gradient.square()
        move = (mean / (1.0 - FIRST**k)) / ((square / (1.0 - SECOND**k)).sqrt() + SMALL)
        return Adam(mean, square, k), move
