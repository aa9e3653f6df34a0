"""The saliency map attack: few values, changed fully (Papernot et al., Euro S&P 2016)."""

from __future__ import annotations

import torch
from torch import Tensor

from forearm.attacks.best import Smallest
from forearm.attacks.gradient import class_gradients, logits_of, margins
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat


def jsma(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    theta: float = 1.0,
    share: float = 0.1,
    pool: int = 128,
) -> Tensor:
    """The first point that wins while pairs of values are raised by `theta`, if it lies in the ball.

    Each step takes the pair (p, q) of values with the largest -alpha beta, where alpha = sum of dz_t / dx > 0 and beta
    = sum over the other classes of dz_j / dx < 0 (or, with the signs turned, lowers a pair), until `share` of all
    values were touched. The target class t is the likeliest wrong one, or y for a targeted threat. For Linf a value
    moves by at most eps; for L1 and L2 the walk is free and its end is projected when it lies outside. Departures:
    pairs are looked for among the `pool` values with the largest alpha and the `pool` with the lowest beta, since all
    pairs of a 32 x 32 picture are 4.7 million; both signs are tried, as the later untargeted versions do. `noise` is
    not used. Cost: share * values / 2 steps of one forward and two backward passes. Source: arXiv 1511.07528.
    """
    found = Smallest.of(x, threat)
    here = torch.arange(len(x), device=x.device)
    logits = logits_of(model, x)
    goal = y if threat.targeted else logits.scatter(1, y[:, None], float("-inf")).argmax(1)
    floor, ceiling = torch.zeros_like(x), torch.ones_like(x)
    if threat.norm.name == "linf":
        floor, ceiling = (x - threat.eps).clamp_min(0.0), (x + threat.eps).clamp_max(1.0)
    x_adv, touched = x, torch.zeros_like(x, dtype=torch.bool)
    for _ in range(max(int(share * x[0].numel()) // 2, 1)):
        alpha, beta = _saliency(model, x_adv, goal[here])
        move = best_pair(alpha, beta, (x_adv < ceiling[here]) & ~touched, (x_adv > floor[here]) & ~touched, pool)
        x_adv = torch.minimum(torch.maximum(x_adv + theta * move, floor[here]), ceiling[here])
        touched = touched | (move != 0)
        stuck = (move == 0).flatten(1).all(1)
        done = found.take(here, x_adv, margins(model, x_adv, y[here], threat)) | stuck
        here, x_adv, touched = here[~done], x_adv[~done], touched[~done]
        if not len(here):
            break
    return found.finish(model, y)


def _saliency(model: Classifier, x: Tensor, goal: Tensor) -> tuple[Tensor, Tensor]:
    """dz_t / dx, and the sum of dz_j / dx over the other classes."""

    def sums(pictures: Tensor) -> Tensor:
        logits = model(pictures)
        wanted = logits.gather(1, goal[:, None])
        return torch.cat([wanted, logits.sum(1, keepdim=True) - wanted], 1)

    both = torch.tensor([0, 1], device=x.device).expand(len(x), 2)
    rows, _ = class_gradients(sums, x, both)
    return rows[:, 0], rows[:, 1]


def best_pair(alpha: Tensor, beta: Tensor, up: Tensor, down: Tensor, pool: int) -> Tensor:
    """+1 at the pair to raise, or -1 at the pair to lower, 0 elsewhere (`n c h w`); all 0 where no pair helps.

    `up`, `down`: the values that may be raised or lowered.
    """
    best = alpha.new_zeros(len(alpha))
    rest = alpha.new_zeros(len(alpha))
    move, fallback = torch.zeros_like(alpha).flatten(1), torch.zeros_like(alpha).flatten(1)
    for sign, free in ((1.0, up.flatten(1)), (-1.0, down.flatten(1))):
        a = (sign * alpha).flatten(1).masked_fill(~free, float("-inf"))
        b = (sign * beta).flatten(1).masked_fill(~free, float("inf"))
        k = min(pool, a.shape[1] // 2)
        near = torch.cat([a.topk(k, 1).indices, b.topk(k, 1, largest=False).indices], 1)
        a_near, b_near = a.gather(1, near), b.gather(1, near)
        a_pair, b_pair = a_near[:, :, None] + a_near[:, None, :], b_near[:, :, None] + b_near[:, None, :]
        two = near[:, :, None] != near[:, None, :]
        fits = (a_pair > 0) & (b_pair < 0) & two
        best, move = _better(best, move, torch.where(fits, -a_pair * b_pair, 0.0), near, sign)
        rest, fallback = _better(rest, fallback, torch.where(two & (a_pair > b_pair), a_pair - b_pair, 0.0), near, sign)
    return torch.where(best[:, None] > 0, move, fallback).reshape(alpha.shape)


def _better(best: Tensor, move: Tensor, score: Tensor, near: Tensor, sign: float) -> tuple[Tensor, Tensor]:
    """The highest score so far and its move, after the pairs of `near` with these scores (`n m m`)."""
    top, at = score.flatten(1).max(1)
    p, q = near.gather(1, (at // near.shape[1])[:, None]), near.gather(1, (at % near.shape[1])[:, None])
    pair = torch.zeros_like(move).scatter(1, torch.cat([p, q], 1), sign)
    higher = top > best
    return torch.where(higher, top, best), torch.where(higher[:, None], pair, move)
