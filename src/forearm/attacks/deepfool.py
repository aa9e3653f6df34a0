"""DeepFool: steps to the nearest linearised boundary (Moosavi-Dezfooli et al., CVPR 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from forearm.attacks.best import Smallest
from forearm.attacks.gradient import class_gradients, logits_of, margins
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.norms import per_example
from forearm.core.threat import Threat


def deepfool(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 50,
    classes: int = 10,
    overshoot: float = 0.02,
) -> Tensor:
    """The first point beyond a boundary, if it lies in the ball; otherwise the highest margin, projected.

        l = argmin_k |f_k| / |w_k|_q;   L2: r_i = |f_l| / |w_l|_2^2 w_l;   Linf: r_i = |f_l| / |w_l|_1 sign w_l

    with f_k = z_k - z_y, w_k its gradient and k among the `classes` - 1 likeliest others. The picture that is scored is
    x + (1 + overshoot) sum_i r_i, clipped to the box. An example leaves when it wins. Linf and L2; `noise` is not used.
    Cost: `steps` times one forward and `classes` backward passes and one forward pass, at most.
    Source: arXiv 1511.04599, algorithm 2.
    """
    found = Smallest.of(x, threat)
    others = logits_of(model, x).scatter(1, y[:, None], float("-inf")).argsort(dim=1, descending=True, stable=True)
    picked = torch.cat([y[:, None], others[:, : min(classes, others.shape[1]) - 1]], 1)
    here = torch.arange(len(x), device=x.device)
    total = torch.zeros_like(x)
    for _ in range(steps):
        point = (x[here] + (1.0 + overshoot) * total).clamp(0.0, 1.0)
        rows, logits = class_gradients(model, point, picked)
        w = rows[:, 1:] - rows[:, :1]
        f = (logits.gather(1, picked[:, 1:]) - logits.gather(1, picked[:, :1])).abs().to(x.dtype)
        total = total + _to_boundary(w, f, threat.norm.name)
        point = (x[here] + (1.0 + overshoot) * total).clamp(0.0, 1.0)
        won = found.take(here, point, margins(model, point, y[here], threat))
        here, total, picked = here[~won], total[~won], picked[~won]
        if not len(here):
            break
    return found.finish(model, y)


def _to_boundary(w: Tensor, f: Tensor, norm: str) -> Tensor:
    """The smallest change that brings one of the linear functions f + <w, r> to 0 (`n m c h w`, `n m` -> `n c h w`)."""
    flat = w.flatten(2)
    dual = (flat.abs().sum(2) if norm == "linf" else flat.square().sum(2).sqrt()).clamp_min(1e-12)
    far = f / dual
    nearest = far.argmin(1)
    index = torch.arange(len(w), device=w.device)
    w_l, d_l = w[index, nearest], per_example(dual[index, nearest], w[:, 0])
    direction = w_l.sign() if norm == "linf" else w_l / d_l
    return per_example(far[index, nearest] + 1e-6, w_l) * direction
