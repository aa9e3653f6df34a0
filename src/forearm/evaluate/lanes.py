"""A model asked for a fixed number of pictures at a time, so that what it says of one does not depend on the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from forearm.core.gradients import Classifier

LANES = 10  # pictures a pass: within about an eighth of the speed of large batches on a CPU, and few idle lanes where few pictures are left


@dataclass(frozen=True, slots=True)
class Lanes:
    """`model`, `width` pictures a pass; a pass with fewer is filled up with copies of its last one, which are thrown away.

    Convolutions and matrix products give slightly different last bits for different batch sizes, attacks follow signs, and their batches shrink as
    examples are won. At one batch size, one thread and one machine a picture's logits and gradient are the same bits in any company and at any
    place, so an attack's result on it is too. Where the model cuts the graph off (a codec, a detached input) its gradient is 0, where autograd
    would raise: an attacker sees a constant. Cost: the idle lanes of the last pass.
    """

    model: Classifier
    width: int = LANES

    def __call__(self, x: Tensor) -> Tensor:
        return torch.cat([self._pass(part) for part in torch.split(x, self.width)]) if len(x) else self.model(x)

    def _pass(self, x: Tensor) -> Tensor:
        idle = self.width - len(x)
        filled = torch.cat([x, x[-1:].detach().expand(idle, -1, -1, -1)]) if idle else x
        logits = self.model(filled)[: len(x)]
        if torch.is_grad_enabled() and x.requires_grad and not logits.requires_grad:
            return logits + 0.0 * x.flatten(1).sum(1, keepdim=True)
        return logits
