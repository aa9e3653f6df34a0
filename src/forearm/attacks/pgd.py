"""Projected gradient ascent (Madry et al., ICLR 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from forearm.attacks.best import Best
from forearm.attacks.gradient import ascent_gradient, confirmed, loss_named, margins
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat


def pgd(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 20,
    step: float | None = None,
    restarts: int = 1,
    loss: str = "ce",
    copies: int = 1,
    random_start: bool = True,
    stop: bool = False,
    twin: Classifier | None = None,
) -> Tensor:
    """The iterate with the highest margin of `restarts` ascents from random points of the ball: `n c h w` in [0, 1],
    within `threat`.

        x_0 uniform in the ball;   x_{k+1} = P( x_k + step eps d(grad L(f(x_k), y)) ),   d the steepest direction of the
        norm (Linf: the sign)

    `step` is in units of eps, 2.5 / steps where it is None. Every iterate is scored, the last one included; what is
    returned on failure is the worst iterate, never the picture itself (which is scored only by chance). With `stop`, an
    example leaves at its first success. With `twin`, gradients are those of a faster copy of the model, and `model`
    itself confirms every success. L1 steps move one pixel each: for L1, `apgd`. Cost per restart: `copies * steps`
    forward and backward passes and one forward pass. Source: arXiv 1706.06083, section 2.1.
    """
    size = (2.5 / steps if step is None else step) * threat.eps
    rise = loss_named(loss)
    best = Best.of(x)
    todo = torch.arange(len(x), device=x.device)
    for restart in range(restarts if random_start else 1):
        here = best.unsolved() if stop else todo
        if not len(here):
            break
        clean, label = x[here], y[here]
        x_adv = threat.sample(clean, noise.at(here).stream(restart)) if random_start else clean
        for k in range(steps):
            gradient, logits = ascent_gradient(twin or model, x_adv, label, threat=threat, loss=rise, copies=copies)
            if k > 0 or random_start:
                best.take(here, x_adv, confirmed(model, twin, logits, x_adv, label, threat))
            x_adv = threat.project(x_adv + size * threat.norm.steepest(gradient), clean)
            if stop and (won := best.margin[here] > 0).any():
                here, x_adv, clean, label = here[~won], x_adv[~won], clean[~won], label[~won]
            if not len(here):
                break
        if len(here):
            best.take(here, x_adv, margins(model, x_adv, label, threat))
    return best.x_adv
