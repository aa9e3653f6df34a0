"""SSAH: change the meaning, keep the low frequencies (Luo et al., CVPR 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.attacks.adam import Adam
from forearm.attacks.best import Best
from forearm.attacks.feature import representation
from forearm.attacks.gradient import margins
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat

EDGE = 1.0 - 1e-6  # keeps atanh finite on black and white


def ssah(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 150,
    rate: float = 0.001,
    smoothness: float = 0.1,
    layer: str = "",
) -> Tensor:
    """The point with the highest margin on a way that turns the features from the picture's own, in high frequencies.

        min_w cos(phi(x'), phi(x)) + max(-margin(f(x')), 0) + smoothness |low(x') - low(x)|_1,   x' = (tanh w + 1) / 2

    by Adam; phi as in `ffa`, low the Haar low-pass (the mean of each 2 x 2 block). x' is moved into the ball before it
    is scored; an example leaves at its first success. Departure: the paper pulls the features to those of the least
    similar picture of the same batch; a result must not depend on its neighbours here, so the margin takes that place.
    `noise` is not used. Cost: `steps` + 1 forward and `steps` backward passes,
    and one forward pass, at most. Source: arXiv 2203.05151, eq. 3 to 8.
    """
    best, here = Best.of(x), torch.arange(len(x), device=x.device)
    with torch.no_grad():
        own, _ = representation(model, x, layer)
    clean, label, w = x, y, torch.atanh((2.0 * x - 1.0) * EDGE)
    adam = Adam.at(w)
    for k in range(steps):
        with torch.enable_grad():
            w = w.detach().requires_grad_()
            free = (torch.tanh(w) + 1.0) / 2.0
            x_adv = free + (threat.project(free, clean) - free).detach()
            phi, logits = representation(model, x_adv, layer)
            margin = threat.margin(logits, label)
            alike = F.cosine_similarity(phi, own, dim=1)
            coarse = (low_frequencies(free) - low_frequencies(clean)).abs().flatten(1).sum(1)
            objective = alike + (-margin).clamp_min(0.0) + smoothness * coarse
            (gradient,) = torch.autograd.grad(objective.sum(), w)
        if k > 0:  # at 0 it is the picture itself
            best.take(here, threat.project(free.detach(), clean), margin.detach())
        adam, move = adam.step(gradient.nan_to_num(0.0, 0.0, 0.0))
        w = w.detach() - rate * move
        if (won := best.margin[here] > 0).any():
            here, clean, label, own, w = here[~won], clean[~won], label[~won], own[~won], w[~won]
            adam = Adam(adam.mean[~won], adam.square[~won], adam.steps)
        if not len(here):
            return best.x_adv
    x_adv = threat.project((torch.tanh(w) + 1.0) / 2.0, clean)
    best.take(here, x_adv, margins(model, x_adv, label, threat))
    return best.x_adv


def low_frequencies(x: Tensor) -> Tensor:
    """The LL band of one Haar wavelet level, as a picture of the same size: each 2 x 2 block's mean."""
    h, w = x.shape[2:]
    coarse = F.avg_pool2d(x, 2, ceil_mode=True)
    return coarse.repeat_interleave(2, 2).repeat_interleave(2, 3)[:, :, :h, :w]
