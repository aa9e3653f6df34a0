"""The L2 attack of Carlini and Wagner (IEEE S&P 2017)."""

from __future__ import annotations

import torch
from torch import Tensor

from forearm.attacks.adam import Adam
from forearm.attacks.best import Smallest
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat

EDGE = 1.0 - 1e-6  # keeps atanh finite on black and white


def carlini_wagner(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    searches: int = 9,
    steps: int = 200,
    rate: float = 0.01,
    weight: float = 0.01,
    confidence: float = 0.0,
) -> Tensor:
    """The smallest L2 change found that wins, if it lies in the ball; otherwise the highest margin, projected.

        min_w |x' - x|_2^2 + c max(-margin(f(x')), -confidence),   x' = (tanh w + 1) / 2,   by Adam

    c starts at `weight`; `searches` rounds of bisection lower it where the attack wins and raise it tenfold where it
    never has. The paper runs 10,000 steps a round; no round is given up early here. `noise` is not used. Cost:
    `searches * (steps + 1)` forward and backward passes. Source: arXiv 1608.04644, section VI-A.
    """
    found = Smallest.of(x, threat)
    everyone = torch.arange(len(x), device=x.device)
    low = x.new_zeros(len(x))
    high = x.new_full((len(x),), float("inf"))
    c = x.new_full((len(x),), weight)
    origin = torch.atanh((2.0 * x - 1.0) * EDGE)
    for _ in range(searches):
        w, adam = origin, Adam.at(x)
        won = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        for k in range(steps + 1):
            x_adv, gradient, margin = _objective(model, w, x, y, c, confidence, threat)
            if k > 0:  # at 0 it is the picture itself
                won |= found.take(everyone, x_adv, margin)
            adam, move = adam.step(gradient)
            w = w - rate * move
        low, high = torch.where(won, low, c), torch.where(won, c, high)
        c = torch.where(high.isinf(), c * 10.0, (low + high) / 2.0)
    return found.finish(model, y)


def _objective(
    model: Classifier, w: Tensor, x: Tensor, y: Tensor, c: Tensor, confidence: float, threat: Threat
) -> tuple[Tensor, Tensor, Tensor]:
    """The picture at `w`, the gradient of the objective with respect to `w`, and the attacker's margin at the picture."""
    with torch.enable_grad():
        w = w.detach().requires_grad_()
        x_adv = (torch.tanh(w) + 1.0) / 2.0
        logits = model(x_adv)
        margin = threat.margin(logits if logits.dtype == torch.float64 else logits.float(), y)
        short = (-margin).clamp_min(-confidence)
        distance = (x_adv - x).flatten(1).square().sum(1)
        (gradient,) = torch.autograd.grad((distance + c * short).sum(), w)
    return x_adv.detach(), gradient.nan_to_num(0.0, 0.0, 0.0), margin.detach()
