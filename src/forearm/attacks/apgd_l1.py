"""Auto-PGD for L1: sparse steps and an exact projection on ball and box together (Croce and Hein, ICML 2021)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor

from forearm.attacks.best import Best
from forearm.attacks.gradient import ascent_gradient, confirmed, margins
from forearm.core.gradients import Classifier
from forearm.core.norms import per_example
from forearm.core.threat import Threat

STAGES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))  # radius in units of eps, share of the steps
SPARSE = 0.2  # share of the values that the first steps change
DENSER = 0.95  # the support counts as shrinking below this share of its size at the checkpoint before
SHORTER = 1.5  # factor between a step and the next, and between the support and the sparsity of a step
SHORTEST = 10.0  # eta never falls under eps / 10
ROUNDING = 1e-6  # changes below this are rounding, not support
HALVINGS = 60  # of the bisection: more than a float64 has bits


def project_l1_box(u: Tensor, x: Tensor, eps: float) -> Tensor:
    """The point of { |z - x|_1 <= eps, 0 <= z <= 1 } that is nearest to `u` in the Euclidean sense (`n c h w`, x in [0,
    1]).

    z = x + sign(u - x) clip(|u - x| - lambda, 0, room) with the least lambda >= 0 that reaches the ball, room the way
    to the box; found by bisection in float64. Source: arXiv 2103.01208, proposition 2.1.
    """
    d = (u - x).flatten(1).double()
    clean = x.flatten(1).double()
    size, room = d.abs(), torch.where(d > 0, 1.0 - clean, clean)
    low, high = torch.zeros_like(size[:, :1]), size.amax(1, keepdim=True)
    high = torch.where(torch.minimum(size, room).sum(1, keepdim=True) <= eps, 0.0, high)
    for _ in range(HALVINGS):
        middle = (low + high) / 2.0
        outside = torch.minimum((size - middle).clamp_min(0.0), room).sum(1, keepdim=True) > eps
        low, high = torch.where(outside, middle, low), torch.where(outside, high, middle)
    kept = torch.minimum((size - high).clamp_min(0.0), room)
    return (clean + d.sign() * kept).to(x.dtype).reshape(x.shape).clamp(0.0, 1.0)


@dataclass(frozen=True, slots=True)
class _Run:
    """The state of each example that is still in the ascent; all tensors have the same first dimension."""

    here: Tensor
    x: Tensor
    y: Tensor
    target: Tensor
    x_adv: Tensor
    gradient: Tensor
    x_max: Tensor
    gradient_max: Tensor
    f_max: Tensor
    step: Tensor  # eta
    share: Tensor  # share of the values that a step changes
    support_then: Tensor  # values that x_max changed at the checkpoint before

    def part(self, keep: Tensor) -> _Run:
        return _Run(*(getattr(self, field.name)[keep] for field in fields(self)))


def ascend_l1(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    todo: Tensor,
    start: Tensor,
    best: Best,
    *,
    threat: Threat,
    steps: int,
    loss: Callable[..., Tensor],
    target: Tensor | None,
    copies: int,
    twin: Classifier | None,
) -> None:
    """One ascent in three stages, in balls of 3, 2 and 1 times eps, each from the highest point of the one before,
    projected.

    Only points of the last stage are scored into `best` (those before lie outside the threat). A `loss` with a `target`
    is called as loss(logits, y, target). Source: arXiv 2103.01208, algorithm 1 and section 4.1.
    """
    x_adv, goal = start, y[todo] if target is None else target
    for times, share in STAGES:
        here = best.margin[todo] <= 0
        todo, x_adv, goal = todo[here], x_adv[here], goal[here]
        if not len(todo):
            return
        scored = best if times == 1.0 else None
        radius = replace(threat, eps=times * threat.eps)
        x_adv = project_l1_box(x_adv, x[todo], radius.eps)
        many = max(int(share * steps), 1)
        x_adv = _stage(
            model,
            x,
            y,
            todo,
            x_adv,
            scored,
            threat=radius,
            steps=many,
            loss=loss,
            target=goal,
            aimed=target is not None,
            copies=copies,
            twin=twin,
        )


def _stage(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    todo: Tensor,
    start: Tensor,
    best: Best | None,
    *,
    threat: Threat,
    steps: int,
    loss: Callable[..., Tensor],
    target: Tensor,
    aimed: bool,
    copies: int,
    twin: Classifier | None,
) -> Tensor:
    """An ascent in one ball; returns the points of highest loss of `todo`.

    Solved examples leave where `best` is given.
    """

    def climb(x_adv: Tensor, label: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rise = partial(loss, target=goal) if aimed else loss
        gradient, logits = ascent_gradient(twin or model, x_adv, label, threat=threat, loss=rise, copies=copies)
        return gradient, logits, -rise(logits, label) if threat.targeted else rise(logits, label)

    clean, label = x[todo], y[todo]
    gradient, logits, f = climb(start, label, target)
    if best is not None:
        best.take(todo, start, confirmed(model, twin, logits, start, label, threat))
    first = torch.full_like(f, float(x[0].numel()))
    highest = start.clone()
    run = _Run(
        todo,
        clean,
        label,
        target,
        start,
        gradient,
        start,
        gradient,
        f,
        torch.full_like(f, threat.eps),
        torch.full_like(f, SPARSE),
        first,
    )
    at = torch.arange(len(todo), device=x.device)
    every = max(int(0.04 * steps), 1)
    for k in range(1, steps + 1):
        if best is not None and not (keep := best.margin[run.here] <= 0).all():
            run, at = run.part(keep), at[keep]
        if not len(at):
            break
        x_adv = project_l1_box(run.x_adv + sparse_step(run.gradient, run.share, run.step), run.x, threat.eps)
        if best is not None and k == steps:
            best.take(run.here, x_adv, margins(model, x_adv, run.y, threat))
            break
        gradient, logits, f = climb(x_adv, run.y, run.target)
        if best is not None:
            best.take(run.here, x_adv, confirmed(model, twin, logits, x_adv, run.y, threat))
        higher = f > run.f_max
        wide = per_example(higher, x_adv).bool()
        run = replace(
            run,
            x_adv=x_adv,
            gradient=gradient,
            x_max=torch.where(wide, x_adv, run.x_max),
            gradient_max=torch.where(wide, gradient, run.gradient_max),
            f_max=torch.where(higher, f, run.f_max),
        )
        highest[at] = run.x_max
        if k % every == 0:
            run = _checked(run, threat.eps)
    return highest


def sparse_step(gradient: Tensor, share: Tensor, step: Tensor) -> Tensor:
    """`step` times the sign of the `share` of the gradient's values that are largest, scaled to L1 size 1 (`share`,
    `step`: `n`).
    """
    magnitude = gradient.flatten(1).abs()
    count = magnitude.shape[1]
    rank = ((1.0 - share) * count).long().clamp(0, count - 1)
    least = magnitude.sort(1).values.gather(1, rank[:, None])
    sign = gradient.flatten(1).sign() * (magnitude >= least)
    return (step[:, None] * sign / sign.abs().sum(1, keepdim=True).clamp_min(1.0)).reshape(gradient.shape)


def _checked(run: _Run, eps: float) -> _Run:
    """The state after a checkpoint: the sparsity follows the support of the highest point;

    a shrinking support restarts from there.
    """
    support = ((run.x_max - run.x).abs() > ROUNDING).flatten(1).sum(1).to(run.step.dtype)
    restart = support < DENSER * run.support_then
    wide = per_example(restart, run.x_adv).bool()
    return replace(
        run,
        x_adv=torch.where(wide, run.x_max, run.x_adv),
        gradient=torch.where(wide, run.gradient_max, run.gradient),
        step=torch.where(restart, eps, (run.step / SHORTER).clamp_min(eps / SHORTEST)),
        share=support / (run.x[0].numel() * SHORTER),
        support_then=support,
    )
