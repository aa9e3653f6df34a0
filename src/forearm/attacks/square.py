"""Square attack: random search with square patches, by the model's answers alone (Andriushchenko et al., ECCV 2020)."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from forearm.attacks.gradient import logits_of, margins
from forearm.core import losses
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.norms import L2, per_example
from forearm.core.threat import Threat

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # after these of FULL queries the patch's area is halved
FULL = 10_000
AT_ONCE = 50  # queries whose random numbers are drawn together


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
    rescale: bool = True,
) -> Tensor:
    """The point with the lowest margin loss of a random search that asks for logits only.

    Each query changes a square patch (of `share` of the picture's area at first, halved after fixed queries of 10,000;
    with `rescale`, after the same shares of `queries`) to a corner of the Linf ball, or moves L2 mass into it; a query
    that lowers the loss (the margin of the true class, or the cross-entropy of the target) is kept. An example leaves
    at its first success. There is no `twin`: what a small patch gains is less than bf16 can tell. Linf and L2. Cost per
    restart: `queries` forward passes at most. Source: arXiv 1912.00049, algorithms 1 to 3.
    """
    x_adv = x.clone()
    best = x.new_full((len(x),), float("-inf"))
    for restart in range(restarts):
        here = (best <= 0).nonzero().squeeze(1)
        if not len(here):
            break
        source = noise.at(here).stream(restart)
        run = _begun(model, x[here], y[here], here, source, threat)
        side = 0
        for query in range(1, queries):
            won = run.margin > 0
            if won.any():
                x_adv[run.here[won]], best[run.here[won]] = run.x_adv[won], run.margin[won]
                run, source = run.part(~won), source.at(~won)
            if not len(run.here):
                break
            turn, before = (query - 1) % AT_ONCE, side
            if turn == 0:
                run = replace(run, luck=_luck(run.x, source))
            side = side_of(patch_share(query, queries if rescale else FULL, share), x, threat)
            if turn == 0 or side != before:
                run = _placed(run, side)
            run = _asked(model, run, turn, side, threat)
        better = run.margin > best[run.here]
        x_adv[run.here[better]], best[run.here[better]] = run.x_adv[better], run.margin[better]
    return x_adv


def patch_share(query: int, queries: int, share: float) -> float:
    """The share of the picture's area that the patch of a query has (section 3.1 and appendix)."""
    at = query / queries * FULL
    return share / 2.0 ** sum(at > mark for mark in HALVINGS)


def side_of(area: float, x: Tensor, threat: Threat) -> int:
    """The side of a square of `area` (a share of the picture's) in pixels; odd and at least 3 for L2."""
    h, w = x.shape[2:]
    side = round(math.sqrt(area * h * w))
    return min(max(side, 3) // 2 * 2 + 1 if threat.norm.name == "l2" else max(side, 1), h, w)


@dataclass(frozen=True, slots=True)
class _Run:
    """The state of each example that is still searched; all tensors have the same first dimension."""

    here: Tensor  # position in the batch
    y: Tensor
    x: Tensor
    ends: Tensor  # the lowest and the highest corner of the Linf ball within the box, one after the other: n 2chw
    x_adv: Tensor  # Linf queries are written into it
    loss: Tensor  # what the search lowers
    margin: Tensor  # above 0: success
    luck: Tensor  # the random numbers of the next queries, n AT_ONCE 5+c
    place: Tensor  # their patches' upper left corners, top and left twice: n AT_ONCE 4

    def part(self, keep: Tensor) -> _Run:
        return _Run(*(getattr(self, field.name)[keep] for field in fields(self)))


def _begun(model: Classifier, x: Tensor, y: Tensor, here: Tensor, noise: Noise, threat: Threat) -> _Run:
    x = x.contiguous()
    start = (_l2_start if threat.norm.name == "l2" else _linf_start)(x, threat, noise)
    loss, margin = _scores(model, start, y, threat)
    ends = torch.cat([threat.project(x + way * threat.eps, x).flatten(1) for way in (-1.0, 1.0)], 1)
    return _Run(here, y, x, ends, start, loss, margin, luck=x.new_empty(len(x), 0), place=x.new_empty(len(x), 0))


def _luck(x: Tensor, noise: Noise) -> Tensor:
    """The random numbers of `AT_ONCE` queries in [0, 1): the places of two patches, one that turns a bump, the signs."""
    return noise.uniform(x.new_empty(len(x), AT_ONCE, 5 + x.shape[1], dtype=torch.float64))


def _placed(run: _Run, side: int) -> _Run:
    """With the places of the coming patches, for a patch of `side`."""
    h, w = run.x.shape[2:]
    free = torch.tensor([h - side + 1, w - side + 1] * 2, device=run.luck.device)
    return replace(run, place=torch.minimum((run.luck[:, :, :4] * free).long(), free - 1))


def _scores(model: Classifier, x: Tensor, y: Tensor, threat: Threat) -> tuple[Tensor, Tensor]:
    """What the search lowers, and the attacker's margin."""
    if not threat.targeted:
        margin = margins(model, x, y, threat)
        return -margin, margin
    logits = logits_of(model, x)
    return losses.cross_entropy(logits, y), threat.margin(logits, y)


def _asked(model: Classifier, run: _Run, turn: int, side: int, threat: Threat) -> _Run:
    """The state after one query. A Linf query touches its patch alone, and is taken back where it is not kept."""
    if threat.norm.name == "l2":
        proposal = _l2_proposal(run, turn, side, threat)
        loss, margin = _scores(model, proposal, run.y, threat)
        kept = (loss < run.loss) | (margin > 0)
        run = replace(run, x_adv=torch.where(per_example(kept, run.x).bool(), proposal, run.x_adv))
    else:
        index, patch = _linf_proposal(run, turn, side)
        picture = run.x_adv.view(len(patch), -1)
        before = picture.gather(1, index)
        picture.scatter_(1, index, patch)
        loss, margin = _scores(model, run.x_adv, run.y, threat)
        kept = (loss < run.loss) | (margin > 0)
        picture.scatter_(1, index, torch.where(kept[:, None], patch, before))
    return replace(run, loss=torch.where(kept, loss, run.loss), margin=torch.where(kept, margin, run.margin))


def _linf_start(x: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """Vertical stripes of +-eps, one sign per channel and column."""
    sign = noise.integers(x.new_empty(len(x), x.shape[1], 1, x.shape[3]), 2).to(x.dtype) * 2.0 - 1.0
    return (x + threat.eps * sign).clamp(0.0, 1.0)


def _linf_proposal(run: _Run, turn: int, side: int) -> tuple[Tensor, Tensor]:
    """One patch set to +-eps, one sign per channel (algorithm 2): the positions of its values in each picture and the
    values, `n m`.
    """
    c, h, w = run.x.shape[1:]
    row = torch.arange(side, device=run.x.device)
    channel = torch.arange(c, device=run.x.device) * (h * w)
    patch = (channel[:, None, None] + w * row[:, None] + row).flatten(1)  # c side^2
    first = run.place[:, turn, 0] * w + run.place[:, turn, 1]
    index = first[:, None, None] + patch
    raised = (run.luck[:, turn, 5:, None] < 0.5) * (c * h * w)
    return index.flatten(1), run.ends.gather(1, (index + raised).flatten(1))


def _l2_start(x: Tensor, threat: Threat, noise: Noise) -> Tensor:
    """A grid of five by five bumps with random signs, scaled to eps (section 3.4)."""
    h, w = x.shape[2:]
    side = max(min(h, w) // 5, 1)
    tile = bump(side).to(x).repeat(h // side, w // side)
    sign = noise.integers(x.new_empty(len(x), x.shape[1], h // side, w // side), 2).to(x.dtype) * 2.0 - 1.0
    grid = sign.repeat_interleave(side, 2).repeat_interleave(side, 3) * tile
    top, left = (h - grid.shape[2]) // 2, (w - grid.shape[3]) // 2
    delta = torch.zeros_like(x)
    delta[:, :, top : top + grid.shape[2], left : left + grid.shape[3]] = grid
    return threat.project(x + threat.eps * L2.steepest(delta), x)


def _l2_proposal(run: _Run, turn: int, side: int, threat: Threat) -> Tensor:
    """A bump in one patch, with the L2 mass of that patch, of another one, which is cleared, and what eps leaves
    (algorithm 3).
    """
    c = run.x.shape[1]
    place, luck = run.place[:, turn], run.luck[:, turn]
    to, cleared = _window(run.x, side, place[:, :2]), _window(run.x, side, place[:, 2:])
    sign = ((luck[:, 5:] < 0.5).to(run.x.dtype) * 2.0 - 1.0)[:, :, None, None]
    delta = run.x_adv - run.x
    both = to.inside | cleared.inside
    mass = (delta.square() * both).sum((2, 3), keepdim=True)  # per channel
    free = (threat.eps**2 - delta.flatten(1).square().sum(1)).clamp_min(0.0)
    kernel = bump(side).to(run.x)
    lying = (luck[:, 4] < 0.5)[:, None, None]
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


def _window(x: Tensor, side: int, place: Tensor) -> _Window:
    """The squares with the upper left corners `place` (`n 2`)."""
    row = torch.arange(x.shape[2], device=x.device)[None, :, None] - place[:, :1, None]
    column = torch.arange(x.shape[3], device=x.device)[None, None, :] - place[:, 1:, None]
    inside = (row >= 0) & (row < side) & (column >= 0) & (column < side)
    return _Window(inside[:, None], row.clamp(0, side - 1), column.clamp(0, side - 1))
