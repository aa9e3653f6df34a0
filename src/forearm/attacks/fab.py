"""Fast adaptive boundary attack: the smallest change that reaches another class (Croce and Hein, ICML 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from forearm.attacks.best import Smallest
from forearm.attacks.gradient import class_gradients, logits_of, margins
from forearm.core.gradients import Classifier, input_gradient
from forearm.core.noise import Noise
from forearm.core.norms import Norm, per_example
from forearm.core.threat import Threat

BIAS = 0.1  # alpha_max: the most that a step leans towards the clean picture
BEYOND = 1.05  # eta: how far over the boundary a step goes
BACK = 0.9  # beta: how much of a change that won is kept for the next step


def fab(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 100,
    restarts: int = 1,
    classes: int = 9,
) -> Tensor:
    """The smallest change found that wins, if it lies in the ball; otherwise the highest margin, projected.

    Each step goes to the nearest of the linearised boundaries with the `classes` likeliest other classes (all of them,
    in the paper). The first start is the picture, later ones are random points. Examples that won within the ball leave
    between restarts. There is no `twin`: near the boundary, where all steps are, bf16 cannot tell the two logits apart
    (distances came out several times as long). Linf, L2 and L1. Cost per restart: `steps` times two forward and
    `classes` + 1 backward passes.
    Source: arXiv 1907.02044, algorithm 1.
    """
    found = Smallest.of(x, threat)
    others = _likeliest(model, x, y)[:, :classes]
    for restart in range(restarts):
        todo = (found.distance > threat.eps).nonzero().squeeze(1)
        _approach(model, x, y, todo, others[todo], restart, found, threat=threat, noise=noise, steps=steps)
    return found.finish(model, y)


def fab_t(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 100,
    restarts: int = 1,
    targets: int = 9,
) -> Tensor:
    """`fab` towards one class at a time, each of the `targets` likeliest wrong ones, which costs one backward pass a
    step.

    Examples that won within the ball leave between targets. Source: arXiv 2003.01690, section 5.
    """
    found = Smallest.of(x, threat)
    others = _likeliest(model, x, y)[:, :targets]
    for rank in range(others.shape[1]):
        for restart in range(restarts):
            todo = (found.distance > threat.eps).nonzero().squeeze(1)
            goal, start = others[todo, rank : rank + 1], rank * restarts + restart
            _approach(model, x, y, todo, goal, start, found, threat=threat, noise=noise, steps=steps)
    return found.finish(model, y)


def _likeliest(model: Classifier, x: Tensor, y: Tensor) -> Tensor:
    """The wrong classes of each picture, the likeliest first (`n k-1`)."""
    logits = logits_of(model, x).scatter(1, y[:, None], float("-inf"))
    return logits.argsort(dim=1, descending=True, stable=True)[:, :-1]


def _approach(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    todo: Tensor,
    others: Tensor,
    start: int,
    found: Smallest,
    *,
    threat: Threat,
    noise: Noise,
    steps: int,
) -> None:
    """One run of the examples `todo` (positions in `x`) towards the classes `others` (`m j`), scored into `found`.

        x' = (1 - a) (x_k + eta d_k) + a (x_0 + eta d_0),   a = min(|d_k| / (|d_k| + |d_0|), alpha_max)

    d_k and d_0 lead from the iterate and from the picture to the nearest linearised boundary, within the box.
    """
    if not len(todo):
        return
    clean, label = x[todo], y[todo]
    x_adv = clean
    if start > 0:
        reach = torch.minimum(found.distance[todo], torch.full_like(found.distance[todo], threat.eps))
        x_adv = threat.sample(clean, noise.at(todo).stream(start)) - clean
        x_adv = (clean + x_adv * per_example(reach / (2.0 * threat.eps), clean)).clamp(0.0, 1.0)
    for _ in range(steps):
        w, gap = _nearest_boundary(model, x_adv, label, others, threat.norm)
        d_k = to_hyperplane(x_adv, w, gap, threat.norm)
        d_0 = to_hyperplane(clean, w, gap + inner(w, clean - x_adv), threat.norm)
        far_k, far_0 = threat.norm.size(d_k), threat.norm.size(d_0)
        a = per_example((far_k / (far_k + far_0).clamp_min(1e-12)).clamp(0.0, BIAS), clean)
        x_adv = d_k.mul_(BEYOND).add_(x_adv).lerp_(d_0.mul_(BEYOND).add_(clean), a).clamp_(0.0, 1.0)
        won = found.take(todo, x_adv, margins(model, x_adv, label, threat))
        x_adv = torch.lerp(clean, x_adv, per_example(torch.where(won, BACK, 1.0), clean))


def _nearest_boundary(model: Classifier, x: Tensor, y: Tensor, others: Tensor, norm: Norm) -> tuple[Tensor, Tensor]:
    """Of the linearised boundaries { z : <w, z - x> + gap = 0 } with the classes `others`, the one nearest to `x`: w
    and gap (`n`), which is below 0 on y's side.
    """
    if others.shape[1] == 1:  # one backward pass, for the difference
        slope, logits = input_gradient(model, x, y, lambda z, own: (z.gather(1, others) - z.gather(1, own[:, None]))[:, 0])
        gap = logits.gather(1, others) - logits.gather(1, y[:, None])
        return slope.nan_to_num(0.0, 0.0, 0.0), gap[:, 0].to(x.dtype)
    rows, logits = class_gradients(model, x, torch.cat([y[:, None], others], 1))
    w = rows[:, 1:] - rows[:, :1]
    gap = logits.gather(1, others) - logits.gather(1, y[:, None])
    dual = _dual_size(w, norm)
    nearest = (gap.abs() / dual.clamp_min(1e-12)).argmin(1)
    index = torch.arange(len(x), device=x.device)
    return w[index, nearest], gap[index, nearest].to(x.dtype)


def inner(a: Tensor, b: Tensor) -> Tensor:
    """<a, b> of each example (`n c h w` -> `n`)."""
    product: Tensor = torch.linalg.vecdot(a.flatten(1), b.flatten(1))
    return product


def _dual_size(w: Tensor, norm: Norm) -> Tensor:
    """The size of each row of `w` (`n m c h w`) in the dual norm: `n m`."""
    flat = w.flatten(2)
    if norm.name == "l2":
        size: Tensor = torch.linalg.vector_norm(flat, dim=2)
        return size
    return flat.abs().amax(2) if norm.name == "l1" else flat.abs().sum(2)


def to_hyperplane(x: Tensor, w: Tensor, gap: Tensor, norm: Norm) -> Tensor:
    """The smallest change d of `x`, in `norm` and within [0, 1], with <w, d> + gap = 0 (`n c h w`; gap: `n`).

    Where the box keeps it from the plane, the corner of the box that comes nearest. Exact: the gain of a change is a
    sum of min(t s_i, c_i) with c_i = |w_i| times the room to the box, and s_i = |w_i| (Linf), w_i^2 (L2); for L1 the
    coordinates with the largest |w_i| are used up one after another. Source: arXiv 1907.02044, section 3 and appendix.
    """
    flat, size = x.flatten(1), w.flatten(1).abs()
    sign = w.flatten(1).sign().mul_(-gap.sign()[:, None])
    room = sign.clamp_min(0.0).sub_(flat).abs_()  # to 1 where the change raises, to 0 where it lowers
    if norm.name == "l1":
        change = _greedy(size, room, gap.abs())
    elif norm.name == "l2":
        knee = room / size.clamp_min(torch.finfo(size.dtype).tiny)
        change = size.mul(_level(size.square(), knee, gap.abs())[:, None]).minimum(room)
    else:
        change = _level(size, room, gap.abs())[:, None].minimum(room)
    return change.mul_(sign).reshape(x.shape)


def _level(slope: Tensor, knee: Tensor, need: Tensor) -> Tensor:
    """The t with sum_i slope_i min(t, knee_i) = need (`n`); a number beyond every knee where need is out of reach.

    The sum is concave in t: Newton's method from the left never goes too far, and ends exactly, at the first step that
    reaches no new knee. A few sums, where a search among sorted knees costs a sort. The mask is one of numbers, written
    in place: on a CPU, products with it are many times faster than selections.
    """
    cap, whole, limit = slope * knee, slope.sum(1), torch.finfo(knee.dtype).max
    reached, work = torch.empty_like(knee), torch.empty_like(knee)
    rise, due, count = whole, need, torch.zeros_like(need)
    t = torch.zeros_like(need)
    while True:
        t = torch.maximum(t, torch.where(rise > 0.0, due / rise, limit).clamp_max(limit))
        torch.le(knee, t[:, None], out=reached)
        before, count = count, reached.sum(1)
        if torch.equal(count, before):
            return t
        rise = whole - torch.mul(slope, reached, out=work).sum(1)
        due = need - torch.mul(cap, reached, out=work).sum(1)


def _greedy(size: Tensor, room: Tensor, need: Tensor) -> Tensor:
    """Changes that use up the coordinates with the largest weight first, until they gain `need`."""
    ranked, order = size.sort(dim=1, descending=True, stable=True)
    cap = ranked * room.gather(1, order)
    rest = need[:, None] - (cap.cumsum(1) - cap)
    part = torch.minimum(rest.clamp_min(0.0), cap) / ranked.clamp_min(torch.finfo(ranked.dtype).tiny)
    return torch.zeros_like(size).scatter(1, order, part)
