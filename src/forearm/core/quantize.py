"""The 8-bit grid: what a picture file can hold, and a release that stays within its budget after rounding.

The level of a value v in [0, 1] is an integer k in 0..255, and k / 255 is its point on the grid.
"""

from __future__ import annotations

import torch
from torch import Tensor

from forearm.core.threat import Threat


def levels(x: Tensor) -> Tensor:
    """The nearest levels of `x`, uint8 of the same shape; halves go up. Values outside [0, 1] go to its ends."""
    scaled = x.clamp(0.0, 1.0) * 255.0
    below = scaled.floor()
    return (below + (scaled - below >= 0.5)).to(torch.uint8)


def to_8bit(x: Tensor) -> Tensor:
    """`x` rounded to k / 255, of its own shape and type."""
    return _from_levels(levels(x), x)


def release(x_protected: Tensor, x: Tensor, threat: Threat) -> Tensor:
    """The protected pictures on the 8-bit grid, exactly within `threat` of `x`: float `n c h w` in [0, 1].

    `x` lies on the 8-bit grid. Sizes are counted in levels, in integers. Linf: the change of a pixel is at most
    floor(255 eps + 1e-9) levels, so a release under eps = 8.9 / 255 moves by at most 8. L1, L2: a pixel is rounded to
    its nearest level; where that leaves the ball, pixels that were rounded away from `x` are rounded towards it
    instead, cheapest first (squared error given up per unit of size won). Rounding all of them towards `x` always ends
    inside, so one pass is enough. Cost: no pass of a model; a sort of the pixels for L1 and L2.
    """
    start = levels(x).to(torch.int32)
    if threat.norm.name == "linf":
        reach = _whole(255.0 * threat.eps)
        change = (levels(x_protected).to(torch.int32) - start).clamp(-reach, reach)
    else:
        power = _POWERS[threat.norm.name]
        wanted = x_protected.to(torch.float64).clamp(0.0, 1.0) * 255.0 - start
        inside = threat.norm.project(wanted, 255.0 * threat.eps)
        change = _rounded_inside(inside, _whole((255.0 * threat.eps) ** power), power)
    return _from_levels(start + change, x)


_POWERS = {"l1": 1, "l2": 2}  # the size of a change, to this power, is a sum over its pixels


def _rounded_inside(change: Tensor, budget: int, power: int) -> Tensor:
    """`change` (in levels, itself inside) rounded to integers whose sum of |d|^power is at most `budget`, int32."""
    flat = change.flatten(1)
    magnitude = flat.abs()
    whole = magnitude.floor()
    part = magnitude - whole
    near = (whole + (part >= 0.5)).to(torch.int64)
    won = near**power - whole.to(torch.int64) ** power  # what rounding towards 0 wins; 0 where that is what happened
    excess = (near**power).sum(1, keepdim=True) - budget
    price = torch.where(won > 0, (2.0 * part - 1.0) / won, torch.inf)
    order = price.argsort(dim=1, stable=True)
    ordered = won.gather(1, order)
    needed = ordered.cumsum(1) - ordered < excess  # what the cheaper ones have won is not yet enough
    size = torch.where(torch.empty_like(needed).scatter_(1, order, needed), whole.to(torch.int64), near)
    return (size * flat.sign().to(torch.int64)).reshape(change.shape).to(torch.int32)


def _whole(size: float) -> int:
    """The largest integer that `size` allows, forgiving the rounding of a float."""
    return int(size * (1.0 + 1e-12) + 1e-9)


def _from_levels(level: Tensor, like: Tensor) -> Tensor:
    return level.to(like.dtype) / 255.0
