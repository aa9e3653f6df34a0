"""Square attack: random search with square patches, by the model's answers alone (Andriushchenko et al., ECCV 2020)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from forearm.attacks.gradient import logits_of, margins
from forearm.core import losses
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.norms import L2, per_example
from forearm.core.threat import Threat

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # of 10,000 queries: after these the patch's area is halved


def square(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    queries: int = 5000,
    share: float = 0.8,
    restarts: int = 1,
) -> Tensor:
    """The point with the lowest margin loss of a random search that asks for logits only.

    Each query changes a square patch (of `share` of the picture's area at first, halved after fixed shares of the
    queries) to a corner of the Linf ball, or moves L2 mass into it; a query that lowers the loss (the margin of the
    true class, or the cross-entropy of the target) is kept. An example leaves at its first success. Linf and L2. Cost
    per restart: `queries` forward passes at most. Source: arXiv 1912.00049, algorithms 1 to 3.
    """
    propose, begin = (_l2_proposal, _l2_start) if threat.norm.name == "l2" else (_linf_proposal, _linf_start)
    x_adv = x.clone()
    best = x.new_full((len(x),), float("-inf"))
    for restart in range(restarts):
        here = (best <= 0).nonzero().squeeze(1)
        if not len(here):
            break
        source = noise.at(here).stream(restart)
        run = _begun(model, x[here], y[here], here, source, begin, threat)
        for query in range(1, queries):
            won = run.margin > 0
            if won.any():
                x_adv[run.here[won]], best[run.here[won]] = run.x_adv[won], run.margin[won]
                run, source = run.part(~won), source.at(~won)
            if not len(run.here):
                break
            run = _asked(model, run, propose(run, patch_share(query, queries, share), threat, source), threat)
        better = run.margin > best[run.here]
        x_adv[run.here[better]], best[run.here[better]] = run.x_adv[better], run.margin[better]
    return x_adv


def patch_share(query: int, queries: int, share: float) -> float:
    """The share of the picture's area that the patch of a query has (section 3.1 and appendix)."""
    at = query / queries * 10_000
    return share / 2.0 ** sum(at > mark for mark in HALVINGS)


@dataclass(frozen=True, slots=True)
class _Run:
    """The state of each example that is still searched; all tensors have the same first dimension."""

    here: Tensor  # position in the batch
    x: Tensor
    y: Tensor
    x_adv: Tensor
    loss: Tensor  # what the search lowers
    margin: Tensor  # above 0: success

    def part(self, keep: Tensor) -> _Run:
        return _Run(*(getattr(self, field.name)[keep] for field in fields(self)))


def _begun(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    here: Tensor,
    noise: Noise,
    begin: Callable[[Tensor, Threat, Noise], Tensor],
    threat: Threat,
) -> _Run:
    start = begin(x, threat, noise)
    loss, margin = _scores(model, start, y, threat)
    return _Run(here, x, y, start, loss, margin)


def _scores(model: Classifier, x: Tensor, y: Tensor, threat: Threat) -> tuple[Tensor, Tensor]:
    """What the search lowers, and the attacker's margin."""
    if not threat.targeted:
        margin = margins(model, x, y, threat)
        return -margin, margin
    logits = logits_of(model, x)
    return losses.cross_entropy(logits, y), threat.margin(logits, y)


def _asked(model: Classifier, run: _Run, proposal: Tensor, threat: Threat) -> _Run:
    """The state after one query."""
    loss, margin = _scores(model, proposal, run.y, threat)
    kept = (loss < run.loss) | (margin > 0)
    return replace(
        run,
        x_adv=torch.where(per_example(kept, run.x).bool(), proposal, run.x_adv),
        loss=torch.where(kept, loss, run.loss),
        margin=torch.where(kept, margin, run.margin),
    )


def _linf_start(x: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """Vertical stripes of +-eps, one sign per channel and column."""
    return (x + threat.eps * _signs(x.new_empty(len(x), x.shape[1], 1, x.shape[3]), noise)).clamp(0.0, 1.0)


def _linf_proposal(run: _Run, share: float, threat: Threat, noise: Noise) -> Tensor:
    """One patch set to +-eps, one sign per channel (algorithm 2)."""
    c, h, w = run.x.shape[1:]
    side = min(max(round(math.sqrt(share * h * w)), 1), h, w)
    patch = _window(run.x, side, noise)
    sign = _signs(run.x.new_empty(len(run.x), c, 1, 1), noise)
    return torch.where(patch.inside, threat.project(run.x + threat.eps * sign, run.x), run.x_adv)


def _l2_start(x: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """A grid of five by five bumps with random signs, scaled to eps (section 3.4)."""
    h, w = x.shape[2:]
    side = max(min(h, w) // 5, 1)
    tile = bump(side).to(x).repeat(h // side, w // side)
    sign = _signs(x.new_empty(len(x), x.shape[1], h // side, w // side), noise)
    grid = sign.repeat_interleave(side, 2).repeat_interleave(side, 3) * tile
    top, left = (h - grid.shape[2]) // 2, (w - grid.shape[3]) // 2
    delta = torch.zeros_like(x)
    delta[:, :, top : top + grid.shape[2], left : left + grid.shape[3]] = grid
    return threat.project(x + threat.eps * L2.steepest(delta), x)


def _l2_proposal(run: _Run, share: float, threat: Threat, noise: Noise) -> Tensor:
    """A bump in one patch, with the L2 mass of that patch, of another one, which is cleared, and what eps leaves
    (algorithm 3).
    """
    c, h, w = run.x.shape[1:]
    side = min(max(round(math.sqrt(share * h * w)), 3) // 2 * 2 + 1, h, w)
    to, cleared = _window(run.x, side, noise), _window(run.x, side, noise)
    sign = _signs(run.x.new_empty(len(run.x), c, 1, 1), noise)
    delta = run.x_adv - run.x
    both = to.inside | cleared.inside
    mass = (delta.square() * both).sum((2, 3), keepdim=True)  # per channel
    free = (threat.eps**2 - delta.flatten(1).square().sum(1)).clamp_min(0.0)
    kernel = bump(side).to(run.x)
    lying = noise.integers(run.x.new_empty(len(run.x), 1, 1), 2).bool()
    hill = torch.where(lying, kernel[to.column, to.row], kernel[to.row, to.column])
    bumped = sign * hill[:, None] * to.inside
    old = (delta * to.inside) / (delta.square() * to.inside).sum((1, 2, 3), keepdim=True).sqrt().clamp_min(1e-12)
    fresh = bumped + old
    fresh = fresh / fresh.square().sum((2, 3), keepdim=True).sqrt().clamp_min(1e-12)
    fresh = fresh * (per_example(free, run.x) / c + mass).sqrt()
    moved = torch.where(to.inside, fresh, torch.where(cleared.inside, torch.zeros_like(delta), delta))
    return (run.x + threat.eps * L2.steepest(moved)).clamp(0.0, 1.0)


def bump(side: int) -> Tensor:
    """A `side` x `side` kernel of unit L2 size: a hill on the upper half, a hollow on the lower (eq. 2)."""
    upper, lower = _hill(side // 2, side), _hill(side - side // 2, side)
    kernel = torch.cat([upper, -lower])
    unit: Tensor = kernel / kernel.norm()
    return unit


def _hill(rows: int, columns: int) -> Tensor:
    """Nested squares around the centre: ring r is as high as the sum of 1 / (k + 1)^2 for k = r to the last ring."""
    away_r = (torch.arange(rows) - rows // 2).abs()
    away_c = (torch.arange(columns) - columns // 2).abs()
    ring = torch.maximum(away_r[:, None], away_c[None, :])
    term = 1.0 / (torch.arange(max(rows, columns) // 2 + 1, dtype=torch.float64) + 1.0).square()
    height = term.flip(0).cumsum(0).flip(0)
    return height[ring]


@dataclass(frozen=True, slots=True)
class _Window:
    """A square at a place of its own in every picture."""

    inside: Tensor  # n 1 h w, bool
    row: Tensor  # n h w: row within the square, clipped to it
    column: Tensor


def _window(x: Tensor, side: int, noise: Noise) -> _Window:
    h, w = x.shape[2:]
    place = noise.uniform(x.new_empty(len(x), 2, dtype=torch.float64))
    top = (place[:, 0] * (h - side + 1)).long().clamp_max(h - side)
    left = (place[:, 1] * (w - side + 1)).long().clamp_max(w - side)
    row = torch.arange(h, device=x.device)[None, :, None] - top[:, None, None]
    column = torch.arange(w, device=x.device)[None, None, :] - left[:, None, None]
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    return _Window(inside[:, None], row.clamp(0, side - 1), column.clamp(0, side - 1))


def _signs(like: Tensor, noise: Noise) -> Tensor:
    """+1 or -1 with equal chance."""
    return noise.integers(like, 2).to(like.dtype) * 2.0 - 1.0
