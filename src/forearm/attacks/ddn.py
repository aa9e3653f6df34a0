"""Decoupling direction and norm: a small L2 change in few steps (Rony et al., CVPR 2019)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from forearm.attacks.best import Smallest
from forearm.attacks.gradient import ascent_gradient, confirmed, margins
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.norms import L2, per_example
from forearm.core.threat import Threat


def ddn(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 100,
    first: float = 1.0,
    gamma: float = 0.05,
    levels: int = 0,
) -> Tensor:
    """The smallest L2 change found that wins, if it lies in the ball; otherwise the highest margin, projected.

        d <- d + a_k g / |g|;   r <- r (1 - gamma) where x + d wins, r (1 + gamma) where not;   d <- r d / |d|

    a_k falls from 1 to 0.01 along a cosine, r starts at `first`. `levels` of 256 would round every change to 8 bits, as
    the paper does; 0 leaves it. `noise` is not used. Cost: `steps` forward and backward passes, and one forward pass.
    Source: arXiv 1811.09600, algorithm 1.
    """
    found = Smallest.of(x, threat)
    everyone = torch.arange(len(x), device=x.device)
    delta = torch.zeros_like(x)
    radius = x.new_full((len(x),), first)
    for k in range(steps):
        x_adv = x + delta
        gradient, logits = ascent_gradient(model, x_adv, y, threat=threat)
        margin = confirmed(model, None, logits, x_adv, y, threat)
        won = found.take(everyone, x_adv, margin) if k > 0 else margin > 0
        a = 0.01 + 0.99 * (1.0 + math.cos(math.pi * k / steps)) / 2.0
        delta = delta + a * L2.steepest(gradient)
        radius = radius * torch.where(won, 1.0 - gamma, 1.0 + gamma)
        delta = per_example(radius, x) * L2.steepest(delta)
        if levels:
            delta = (delta * (levels - 1)).round() / (levels - 1)
        delta = (x + delta).clamp(0.0, 1.0) - x
    found.take(everyone, x + delta, margins(model, x + delta, y, threat))
    return found.finish(model, y)
