"""Spatially transformed pictures: pixels are moved, not repainted (Xiao et al., ICLR 2018)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.attacks.adam import Adam
from forearm.attacks.best import Best
from forearm.attacks.gradient import margins
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat


def sta(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 100,
    rate: float = 0.05,
    smoothness: float = 0.05,
    reach: float = 3.0,
) -> Tensor:
    """The point with the highest margin among pictures bent by a smooth flow, each moved into the ball before it is
    scored.

        min_flow max(-margin(f(x')), 0) + smoothness mean_p sum_q |flow(p) - flow(q)|,   q the neighbours of p

    The flow is in pixels, at most `reach` each way, and starts within a hundredth of one; an example leaves at its
    first success. The paper bounds no norm: `linf:1` gives its attack, a smaller ball what is left of it there (the
    projection is passed straight through in the gradient). Departures: Adam for L-BFGS; mean for sum over pixels. Cost:
    `steps` forward and backward passes, and one forward pass, at most. Source: arXiv 1801.02612, eq. 2 to 4.
    """
    best, here = Best.of(x), torch.arange(len(x), device=x.device)
    flow = noise.uniform(x.new_empty(len(x), 2, *x.shape[2:]), -0.01, 0.01)
    clean, label, adam = x, y, Adam.at(flow)
    for _ in range(steps):
        with torch.enable_grad():
            flow = flow.detach().requires_grad_()
            bent = warped(clean, flow)
            x_adv = bent + (threat.project(bent, clean) - bent).detach()
            logits = model(x_adv)
            margin = threat.margin(logits if logits.dtype == torch.float64 else logits.float(), label)
            objective = (-margin).clamp_min(0.0) + smoothness * roughness(flow)
            (gradient,) = torch.autograd.grad(objective.sum(), flow)
        best.take(here, threat.project(bent.detach(), clean), margin.detach())
        adam, move = adam.step(gradient.nan_to_num(0.0, 0.0, 0.0))
        flow = (flow.detach() - rate * move).clamp(-reach, reach)
        if (won := best.margin[here] > 0).any():
            here, clean, label, flow = here[~won], clean[~won], label[~won], flow[~won]
            adam = Adam(adam.mean[~won], adam.square[~won], adam.steps)
        if not len(here):
            return best.x_adv
    x_adv = threat.project(warped(clean, flow), clean)
    best.take(here, x_adv, margins(model, x_adv, label, threat))
    return best.x_adv


def warped(x: Tensor, flow: Tensor) -> Tensor:
    """`x` read at each pixel's place plus `flow` (`n 2 h w`:

    right and down, in pixels), bilinear, the border repeated.
    """
    h, w = x.shape[2:]
    row = torch.arange(h, dtype=x.dtype, device=x.device)[:, None] + flow[:, 1]
    column = torch.arange(w, dtype=x.dtype, device=x.device)[None, :] + flow[:, 0]
    grid = torch.stack([(2.0 * column + 1.0) / w - 1.0, (2.0 * row + 1.0) / h - 1.0], -1)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def roughness(flow: Tensor) -> Tensor:
    """The mean over pixels of the distances between a pixel's flow and those of its four neighbours (`n`; eq. 4)."""
    across = (flow[:, :, :, 1:] - flow[:, :, :, :-1]).square().sum(1)
    down = (flow[:, :, 1:] - flow[:, :, :-1]).square().sum(1)
    total = (across + 1e-12).sqrt().flatten(1).sum(1) + (down + 1e-12).sqrt().flatten(1).sum(1)
    return 2.0 * total / flow[0, 0].numel()
