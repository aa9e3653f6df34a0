"""The anti-adversary layer (Alfarra et al., AAAI 2022): a step at test time towards what the model says anyway."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forearm.core.gradients import Classifier, input_gradient
from forearm.defenses.inference.hardened import Hardened
from forearm.errors import SpecError


def anti_adversary(model: nn.Module, *, steps: int = 2, rate: float = 0.15) -> nn.Module:
    """`model` on pictures pushed towards their own predicted label: `n c h w` in [0, 1] -> logits `n k`.

        y = argmax f(x),   g_0 = 0,   g_{k+1} = g_k - rate sign(grad_g CE(f(x + g_k), y)),   f(x + g_steps)

    `rate` in units of the range [0, 1]; published: 2 steps of 0.15 on CIFAR-10, points not clipped. The push is a constant to whoever differentiates the
    result, as in the authors' code. Each example's loss is its own, not the mean over the batch; its sign is the same until the mean underflows.
    As it takes signs of gradients, the last bits of the result, and now and then a sign, depend on the size of the batch. Raises SpecError for steps
    below 0 and a rate that is not positive. It is the test-time twin of a preemptive defence: while `rate` is small it confirms the label that the
    model gives anyway, so what fools the bare model fools this one, and an attacker who knows differentiates that (`bare`). A rate that is large for
    the model (0.15 for one that was trained naturally) changes labels of clean pictures too. Cost: `steps` + 2 forward and `steps` backward passes.
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 0:
        raise SpecError(f"anti_adversary: got steps={steps!r}; a whole number of 0 or more, for example 2")
    if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0.0 < rate < float("inf"):
        raise SpecError(f"anti_adversary: got rate={rate!r}; a number above 0, for example 0.15")
    return AntiAdversary(model, steps, rate)


def bare(model: nn.Module, *, steps: int = 2, rate: float = 0.15) -> Classifier:
    """What an attacker who knows differentiates: the model without the layer, whose label the layer confirms. Cost: one pass."""
    return model


class AntiAdversary(Hardened):
    """`model(x + g(x))`; see `anti_adversary`."""

    def __init__(self, model: nn.Module, steps: int, rate: float) -> None:
        super().__init__(model, nn.Identity())
        self.steps, self.rate = steps, rate

    def forward(self, x: Tensor) -> Tensor:
        """The logits of the pushed pictures."""
        logits: Tensor = self.model(x + self.push(x))
        return logits

    def push(self, x: Tensor) -> Tensor:
        """g_steps (`n c h w`), without a graph."""
        x = x.detach()
        push = torch.zeros_like(x)
        with torch.no_grad():
            y = self.model(x).argmax(1)
        for _ in range(self.steps):
            gradient, _ = input_gradient(self.model, x + push, y)
            push = push - self.rate * gradient.sign()
        return push
