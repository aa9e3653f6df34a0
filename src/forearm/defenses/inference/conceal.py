"""The gradient concealment module (Pei et al., arXiv 2205.10617, 2022): a change of 1e-8 whose slope is 1e12.

It deters an attacker who does not know that it is there, and nobody else: every adversarial example of the bare model is one of the concealed model.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forearm.core.gradients import Classifier
from forearm.defenses.inference.hardened import Hardened, looks_at_values
from forearm.errors import InputError, SpecError


def conceal(model: nn.Module, *, omega: float = 1e20, epsilon: float = 1e-8, detached: bool = False) -> nn.Module:
    """`model` with its gradient concealed: `n c h w` in [0, 1] -> logits `n k`.

        y = x + epsilon sin(omega x),   d y / d x = 1 + epsilon omega cos(omega x)

    as the first operation of the forward pass, on the pictures as they come. In float32, 42 of the 256 grey levels change, by at most 1.5e-8; the
    sign of the slope is a hash of the pixel's bits (130 levels plus, 126 minus), so the logits stay and the gradient's signs are shuffled.
    `detached`: the identity passes no gradient (an earlier variant, published with omega = 1e10, epsilon = 1e-6). bfloat16 has the range, and its
    pictures do not change at all; float16 is refused, as omega overflows; float64 has another table of signs. Weights, state dict, train and eval
    mode are the model's (`Hardened`). Raises SpecError for an omega or epsilon that float32 cannot hold, InputError for float16
    pictures and for values whose phase is not a number (not looked for while a graph is captured). An attacker who knows
    differentiates the bare model. Cost: one pass of the model and one sine a value.
    """
    low, high = torch.finfo(torch.float32).tiny, torch.finfo(torch.float32).max
    for name, value, example in (("omega", omega, 1e20), ("epsilon", epsilon, 1e-8)):
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise SpecError(f"conceal: got {name}={value!r}; a number from {low:.2g} to {high:.2g}, for example {example:g}")
    return Hardened(model, Concealment(omega, epsilon, detached))


def bare(model: nn.Module, *, omega: float = 1e20, epsilon: float = 1e-8, detached: bool = False) -> Classifier:
    """What an attacker who knows differentiates: `model` as it was before `conceal`, whose pictures differ by 1.5e-8."""
    return model


class Concealment(nn.Module):
    """x + epsilon sin(omega x), of the shape and type of `x`; see `conceal`."""

    def __init__(self, omega: float, epsilon: float, detached: bool) -> None:
        super().__init__()
        self.omega, self.epsilon, self.detached = omega, epsilon, detached

    def forward(self, x: Tensor) -> Tensor:
        """`n c h w` -> the same."""
        if x.dtype == torch.float16:
            raise InputError(f"conceal: got float16 pictures, where {self.omega:g} x overflows; float32 or bfloat16, for example x.float()")
        phase = self.omega * x
        if looks_at_values(x) and not bool(torch.isfinite(phase).all()):
            raise InputError(f"conceal: got {_worst(x)} in the pictures; finite values, for example x.clamp(0, 1)")
        return (x.detach() if self.detached else x) + self.epsilon * torch.sin(phase)


def _worst(x: Tensor) -> str:
    values = x.detach().flatten().float()
    return "NaN" if bool(values.isnan().any()) else f"{float(values[values.abs().argmax()]):g}"
