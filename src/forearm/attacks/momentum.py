"""Momentum iterative FGSM, with input diversity and translation invariance, made for transfer from a surrogate."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.attacks.best import Best
from forearm.attacks.gradient import ascent_gradient, confirmed, loss_named, margins
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.norms import per_example
from forearm.core.threat import Threat


def mi_fgsm(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 10,
    step: float | None = None,
    decay: float = 1.0,
    diversity: float = 0.0,
    shrink: float = 0.9,
    kernel: int = 1,
    loss: str = "ce",
    source: Classifier | None = None,
    twin: Classifier | None = None,
) -> Tensor:
    """Ascent along the sum of past gradients, each scaled to mean absolute value 1 (MI-FGSM).

        g_{k+1} = decay g_k + grad / mean|grad|;   x_{k+1} = P( x_k + step eps d(g_{k+1}) ),   from the picture itself

    With chance `diversity` a gradient is taken on a smaller, randomly placed copy of the picture, of `shrink` times its
    side or more (DI, whose paper enlarges the padded picture instead: here the size stays the model's own). `kernel`
    above 1 smooths each gradient with a Gaussian of that odd width (TI). `step` is in units of eps, 1 / steps where it
    is None. With `source`, all gradients are the surrogate's, `model` is never asked, and the result is the last
    iterate; if there is none, it is the iterate with the highest margin. Cost: `steps` forward and backward passes, and
    one forward. Sources: arXiv 1710.06081 (algorithm 1), 1803.06978 (DI), 1904.02884 (TI).
    """
    size = (1.0 / steps if step is None else step) * threat.eps
    rise, best = loss_named(loss), Best.of(x)
    everyone = torch.arange(len(x), device=x.device)
    x_adv, total = x, torch.zeros_like(x)
    guide = source or twin or model
    for k in range(steps):
        seen = diverse(guide, x, noise, diversity, shrink) if diversity > 0.0 else guide
        gradient, logits = ascent_gradient(seen, x_adv, y, threat=threat, loss=rise)
        if k > 0 and source is None:
            known = logits if diversity == 0.0 else None
            scored = margins(model, x_adv, y, threat) if known is None else confirmed(model, twin, known, x_adv, y, threat)
            best.take(everyone, x_adv, scored)
        gradient = smoothed(gradient, kernel) if kernel > 1 else gradient
        total = decay * total + gradient / per_example(gradient.flatten(1).abs().mean(1), x).clamp_min(1e-30)
        x_adv = threat.project(x_adv + size * threat.norm.steepest(total), x)
    if source is not None:
        return x_adv
    best.take(everyone, x_adv, margins(model, x_adv, y, threat))
    return best.x_adv


def diverse(model: Classifier, x: Tensor, noise: Noise, chance: float, shrink: float) -> Classifier:
    """`model` behind a random resize and placement drawn for each picture of `x`;

    the same draw in every call of the result.
    """
    u = noise.uniform(x.new_empty(len(x), 4))
    used = u[:, 0] < chance
    scale = torch.where(used, shrink + (1.0 - shrink) * u[:, 1], torch.ones_like(u[:, 1]))
    slack = 1.0 - scale
    # the output at p shows the picture at (p - centre) / scale; outside of it is black
    theta = x.new_zeros(len(x), 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = 1.0 / scale
    theta[:, 0, 2] = -slack * (2.0 * u[:, 2] - 1.0) / scale
    theta[:, 1, 2] = -slack * (2.0 * u[:, 3] - 1.0) / scale

    def seen(pictures: Tensor) -> Tensor:
        grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
        moved = F.grid_sample(pictures, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        return model(torch.where(per_example(used, pictures).bool(), moved, pictures))

    return seen


def smoothed(gradient: Tensor, width: int) -> Tensor:
    """The gradient under a Gaussian kernel of odd `width`, three standard deviations to each side (TI, section 3.3)."""
    at = torch.linspace(-3.0, 3.0, width, dtype=gradient.dtype, device=gradient.device)
    row = torch.exp(-0.5 * at.square())
    row = row / row.sum()
    c = gradient.shape[1]
    across = F.conv2d(gradient, row.reshape(1, 1, 1, -1).expand(c, 1, 1, -1), padding=(0, width // 2), groups=c)
    return F.conv2d(across, row.reshape(1, 1, -1, 1).expand(c, 1, -1, 1), padding=(width // 2, 0), groups=c)
