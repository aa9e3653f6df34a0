"""SPSA: Adam on gradients estimated from random differences (Uesato et al., ICML 2018)."""

from __future__ import annotations

import torch
from torch import Tensor

from forearm.attacks.adam import Adam
from forearm.attacks.best import Best
from forearm.attacks.gradient import margins
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.norms import per_example
from forearm.core.threat import Threat

AT_ONCE = 4_000_000  # values of all probes that go through the model together


def spsa(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 100,
    probes: int = 64,
    rate: float = 0.01,
    reach: float = 0.01,
) -> Tensor:
    """The point with the highest margin of an ascent that sees no gradient, only logits; examples leave at success.

        g = mean_i [ margin(x + reach v_i) - margin(x - reach v_i) ] / (2 reach) v_i,   v_i in {-1, +1}^d;   Adam, then
        P

    `probes` / 2 directions v_i a step (the paper: 2,048 to 8,192 probes), `rate` and `reach` in pixel units. Linf, L2,
    L1. Cost: `steps * (probes + 1)` forward passes. Source: arXiv 1802.05666, section 4 and appendix.
    """
    best = Best.of(x)
    here = torch.arange(len(x), device=x.device)
    clean, label = x, y
    x_adv, adam = threat.sample(x, noise), Adam.at(x)
    for k in range(steps):
        gradient = estimated_gradient(model, x_adv, label, threat=threat, noise=noise, probes=probes, reach=reach)
        adam, move = adam.step(gradient)
        x_adv = threat.project(x_adv + rate * move, clean)
        best.take(here, x_adv, margins(model, x_adv, label, threat))
        won = best.margin[here] > 0
        if won.any() and k + 1 < steps:
            here, clean, label, x_adv, noise = here[~won], clean[~won], label[~won], x_adv[~won], noise.at(~won)
            adam = Adam(adam.mean[~won], adam.square[~won], adam.steps)
        if not len(here):
            break
    return best.x_adv


def estimated_gradient(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise, probes: int, reach: float) -> Tensor:
    """The gradient of the attacker's margin from `probes` random differences. Cost: `probes` forward passes."""
    pairs = max(probes // 2, 1)
    together = max(1, min(pairs, AT_ONCE // max(2 * x.numel(), 1)))
    total = torch.zeros_like(x)
    for first in range(0, pairs, together):
        k = min(together, pairs - first)
        v = torch.cat([noise.integers(x, 2).to(x.dtype) * 2.0 - 1.0 for _ in range(k)])
        centre, label = x.repeat(k, 1, 1, 1), y.repeat(k)
        ends = margins(model, torch.cat([centre + reach * v, centre - reach * v]), torch.cat([label, label]), threat)
        high, low = ends.to(x.dtype).chunk(2)
        slope = (high - low).nan_to_num(0.0, 0.0, 0.0) / (2.0 * reach)
        total = total + (per_example(slope, v) * v).reshape(k, *x.shape).sum(0)
    return total / pairs
