"""AdvDrop: an attack that takes information away, by quantising block frequencies (Duan et al., ICCV 2021)."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.attacks.best import Best
from forearm.attacks.gradient import margins
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat

SIDE = 8  # of a block
SOFTNESS = 0.01  # alpha of the smooth staircase: 0 is a hard one, 1 a straight line


def advdrop(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 50,
    step: float = 4.0,
    least: float = 5.0,
    most: float = 60.0,
) -> Tensor:
    """The point with the highest margin among pictures whose 8 x 8 block frequencies are rounded to multiples of a
    table.

        x' = IDCT( q round( DCT(x) / q ) ),   q <- clip( q + step sign(grad_q L(f(x'))), least, most )

    One table q (8 x 8 per colour channel) for each picture, in levels of 1/255, from `least`; L is the attacker's
    margin. Each x' is moved into the ball before it is scored; the paper bounds only the table (`linf:1` gives its
    attack). Departures: RGB channels; the picture is rounded hard from the first step on, and only its gradient is that
    of the paper's smooth staircase, which the paper anneals in both. An example leaves at its first success. `noise` is
    not used. Cost: `steps` forward and backward passes, and one forward pass, at most. Source: arXiv 2108.09034,
    section 3.
    """
    best, here = Best.of(x), torch.arange(len(x), device=x.device)
    clean, label = x, y
    table = x.new_full((len(x), x.shape[1], 1, 1, SIDE, SIDE), least)
    for _ in range(steps):
        with torch.enable_grad():
            table = table.detach().requires_grad_()
            dropped = quantised(clean, table)
            x_adv = dropped + (threat.project(dropped, clean) - dropped).detach()
            logits = model(x_adv)
            margin = threat.margin(logits if logits.dtype == torch.float64 else logits.float(), label)
            (gradient,) = torch.autograd.grad(margin.sum(), table)
        best.take(here, threat.project(dropped.detach(), clean), margin.detach())
        table = (table.detach() + step * gradient.nan_to_num(0.0, 0.0, 0.0).sign()).clamp(least, most)
        if (won := best.margin[here] > 0).any():
            here, clean, label, table = here[~won], clean[~won], label[~won], table[~won]
        if not len(here):
            return best.x_adv
    x_adv = threat.project(quantised(clean, table), clean)
    best.take(here, x_adv, margins(model, x_adv, label, threat))
    return best.x_adv


def quantised(x: Tensor, table: Tensor) -> Tensor:
    """`x` with its block frequencies rounded to multiples of `table` (`n c 1 1 8 8`, levels of 1/255), differentiable
    in it.
    """
    h, w = x.shape[2:]
    padded = F.pad(x, (0, -w % SIDE, 0, -h % SIDE), mode="replicate")
    n, c, high, wide = padded.shape
    blocks = padded.reshape(n, c, high // SIDE, SIDE, wide // SIDE, SIDE).transpose(3, 4) * 255.0
    basis = dct_matrix(SIDE).to(x)
    frequency = basis @ blocks @ basis.T
    ratio = frequency / table
    soft = soft_round(ratio)
    kept = table * (soft + (ratio.round() - soft).detach())
    back = (basis.T @ kept @ basis) / 255.0
    return back.transpose(3, 4).reshape(n, c, high, wide)[:, :, :h, :w].clamp(0.0, 1.0)


def soft_round(r: Tensor) -> Tensor:
    """A smooth staircase, floor(r) + (1 + tanh(s (r - floor(r) - 1/2)) / (1 - SOFTNESS)) / 2, s = log(2 / SOFTNESS -
    1).
    """
    foot = r.detach().floor()
    steep = math.log(2.0 / SOFTNESS - 1.0)
    return foot + (1.0 + torch.tanh(steep * (r - foot - 0.5)) / (1.0 - SOFTNESS)) / 2.0


def dct_matrix(n: int) -> Tensor:
    """The orthonormal DCT-II as a float64 matrix `n n`: row k holds cos(pi k (2 j + 1) / (2 n)), scaled."""
    k = torch.arange(n, dtype=torch.float64)
    matrix = (math.pi * k[:, None] * (2.0 * k[None, :] + 1.0) / (2.0 * n)).cos() * math.sqrt(2.0 / n)
    matrix[0] /= math.sqrt(2.0)
    return matrix
