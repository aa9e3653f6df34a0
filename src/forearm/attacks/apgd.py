"""Auto-PGD with cross-entropy, DLR or targeted DLR (Croce and Hein, ICML 2020), for Linf and L2;

for L1 see `apgd_l1`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import partial

import torch
from torch import Tensor

from forearm.attacks.apgd_l1 import ascend_l1
from forearm.attacks.best import Best
from forearm.attacks.gradient import ascent_gradient, confirmed, logits_of, loss_named, margins
from forearm.core.gradients import Classifier
from forearm.core.losses import targeted_dlr
from forearm.core.noise import Noise
from forearm.core.norms import per_example
from forearm.core.threat import Threat

MOMENTUM = 0.75  # alpha of eq. 1
RISES = 0.75  # rho of condition 1


def apgd(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 100,
    restarts: int = 1,
    loss: str = "ce",
    copies: int = 1,
    twin: Classifier | None = None,
) -> Tensor:
    """The point with the highest margin of `restarts` ascents with a step size that halves itself: `n c h w` in [0, 1],
    within `threat`.

    An example leaves at its first success. `loss`: "ce", "dlr" (scale-free; the margin for fewer than 3 classes) or
    "margin". `copies` gradients are averaged per step, for models that draw their own randomness. With `twin`,
    gradients and losses are those of a faster copy of the model, and `model` itself confirms every success. Cost per
    restart: `copies * steps` forward and backward passes and one forward pass, at most. Source: arXiv 2003.01690,
    algorithm 1; L1: arXiv 2103.01208.
    """
    best = Best.of(x)
    rise = loss_named(loss)
    for restart in range(restarts):
        todo = best.unsolved()
        if not len(todo):
            break
        start = threat.sample(x[todo], noise.at(todo).stream(restart))
        ascend(model, x, y, todo, start, best, threat=threat, steps=steps, loss=rise, copies=copies, twin=twin)
    return best.x_adv


def apgd_dlr(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 100,
    restarts: int = 1,
    copies: int = 1,
    twin: Classifier | None = None,
) -> Tensor:
    """`apgd` with the difference of logits ratio as its loss."""
    return apgd(model, x, y, threat=threat, noise=noise, steps=steps, restarts=restarts, loss="dlr", copies=copies, twin=twin)


def apgd_t(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 100,
    restarts: int = 1,
    targets: int = 9,
    copies: int = 1,
    twin: Classifier | None = None,
) -> Tensor:
    """The point with the highest margin of ascents towards each of the `targets` likeliest wrong classes of the clean
    picture, one after another.

    The loss is the targeted DLR (eq. 7 of the paper), for fewer than 4 classes z_t - z_y; any misclassification is a
    success, and the example leaves. `threat` is untargeted: y is the true class. Cost: that of `apgd` times `targets`
    at most, and one forward pass. Source: arXiv 2003.01690.
    """
    best = Best.of(x)
    others = logits_of(model, x).scatter(1, y[:, None], float("-inf")).argsort(dim=1, descending=True, stable=True)[:, :-1]
    for rank in range(min(targets, others.shape[1])):
        for restart in range(restarts):
            todo = best.unsolved()
            if not len(todo):
                return best.x_adv
            start = threat.sample(x[todo], noise.at(todo).stream(rank * restarts + restart))
            target = others[todo, rank]
            ascend(
                model,
                x,
                y,
                todo,
                start,
                best,
                threat=threat,
                steps=steps,
                loss=_towards,
                target=target,
                copies=copies,
                twin=twin,
            )
    return best.x_adv


def _towards(logits: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """Targeted DLR, or z_t - z_y for fewer than 4 classes."""
    if logits.shape[1] >= 4:
        return targeted_dlr(logits, y, target)
    return (logits.gather(1, target[:, None]) - logits.gather(1, y[:, None])).squeeze(1)


@dataclass(frozen=True, slots=True)
class _Run:
    """The state of each example that is still in the ascent; all tensors have the same first dimension."""

    here: Tensor  # position in the batch
    x: Tensor
    y: Tensor
    target: Tensor  # the class that a targeted loss goes for; y where it has none
    x_adv: Tensor
    x_before: Tensor
    gradient: Tensor
    f: Tensor  # the loss at x_adv
    x_max: Tensor  # the point with the highest loss
    gradient_max: Tensor
    f_max: Tensor
    step: Tensor  # eta
    rises: Tensor  # steps since the checkpoint that raised the loss
    f_max_then: Tensor  # f_max at the checkpoint before
    halved_then: Tensor  # whether the step was halved at the checkpoint before

    def part(self, keep: Tensor) -> _Run:
        return _Run(*(getattr(self, field.name)[keep] for field in fields(self)))


def checkpoints(steps: int) -> list[int]:
    """The steps after which the step size is reconsidered:

    22 % of all, then ever closer by 3 % down to 6 % (section 3.2, as published code rounds).
    """
    gap, at, found = max(int(0.22 * steps), 1), 0, []
    while (at := at + gap) <= steps:
        found.append(at)
        gap = max(gap - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    return found


def ascend(
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
    target: Tensor | None = None,
    copies: int = 1,
    twin: Classifier | None = None,
) -> None:
    """One ascent of the examples `todo` (positions in `x`) from `start`; every iterate is scored into `best`.

        z = P( x_k + eta d(g_k) );   x_{k+1} = P( x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1}) )

    eta starts at 2 eps and is halved, and the ascent goes back to its highest point, at a checkpoint where at most 75 %
    of the steps since the last one raised the loss (condition 1), or where neither eta nor the highest loss has changed
    since (condition 2). A `loss` with a `target` is called as loss(logits, y, target).
    """
    if threat.norm.name == "l1":
        ascend_l1(
            model,
            x,
            y,
            todo,
            start,
            best,
            threat=threat,
            steps=steps,
            loss=loss,
            target=target,
            copies=copies,
            twin=twin,
        )
        return

    def climb(x_adv: Tensor, label: Tensor, goal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        rise = loss if target is None else partial(loss, target=goal)
        gradient, logits = ascent_gradient(twin or model, x_adv, label, threat=threat, loss=rise, copies=copies)
        return gradient, logits, -rise(logits, label) if threat.targeted else rise(logits, label)

    clean, label, goal = x[todo], y[todo], y[todo] if target is None else target
    gradient, logits, f = climb(start, label, goal)
    best.take(todo, start, confirmed(model, twin, logits, start, label, threat))
    step = torch.full_like(f, 2.0 * threat.eps)
    no = torch.zeros_like(f, dtype=torch.bool)
    run = _Run(todo, clean, label, goal, start, start, gradient, f, start, gradient, f, step, torch.zeros_like(f), f, ~no)
    last_check, checks = 0, set(checkpoints(steps))
    for k in range(1, steps + 1):
        if not (keep := best.margin[run.here] <= 0).all():
            run = run.part(keep)
        if not len(run.here):
            return
        uphill = threat.norm.steepest(run.gradient)
        z = threat.project(torch.addcmul(run.x_adv, per_example(run.step, run.x), uphill), run.x)
        a = MOMENTUM if k > 1 else 1.0
        x_adv = torch.lerp(run.x_adv, z, a).add_(run.x_adv - run.x_before, alpha=1.0 - a)
        x_adv = threat.project(x_adv, run.x)
        if k == steps:
            best.take(run.here, x_adv, margins(model, x_adv, run.y, threat))
            return
        gradient, logits, f = climb(x_adv, run.y, run.target)
        best.take(run.here, x_adv, confirmed(model, twin, logits, x_adv, run.y, threat))
        run = _moved(run, x_adv, gradient, f)
        if k in checks:
            run, last_check = _checked(run, k - last_check), k


def _moved(run: _Run, x_adv: Tensor, gradient: Tensor, f: Tensor) -> _Run:
    """The state after a step to `x_adv`."""
    higher = f > run.f_max
    wide = per_example(higher, x_adv)  # 0 or 1: lerp then takes one of two exactly, and is faster than a selection
    return replace(
        run,
        x_adv=x_adv,
        x_before=run.x_adv,
        gradient=gradient,
        f=f,
        x_max=torch.lerp(run.x_max, x_adv, wide),
        gradient_max=torch.lerp(run.gradient_max, gradient, wide),
        f_max=torch.where(higher, f, run.f_max),
        rises=run.rises + (f > run.f),
    )


def _checked(run: _Run, since: int) -> _Run:
    """The state after a checkpoint: where a condition holds, half the step, from the highest point."""
    halve = (run.rises <= RISES * since) | (~run.halved_then & (run.f_max <= run.f_max_then))
    wide = per_example(halve, run.x_adv).bool()
    return replace(
        run,
        step=torch.where(halve, run.step / 2.0, run.step),
        x_adv=torch.where(wide, run.x_max, run.x_adv),
        gradient=torch.where(wide, run.gradient_max, run.gradient),
        f=torch.where(halve, run.f_max, run.f),
        rises=torch.zeros_like(run.rises),
        f_max_then=run.f_max,
        halved_then=halve,
    )
