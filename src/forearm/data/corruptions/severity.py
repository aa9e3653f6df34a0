"""How strong an operation is: what is published for pictures of 32 pixels (CIFAR-10-C) and of 224 (ImageNet-C), and what lies between.

Source of the pairs of rows in this package: Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions and perturbations",
ICLR 2019 (arXiv 1903.12261), as their scripts for the two data sets have them.
"""

from __future__ import annotations

import math

from torch import Tensor

from forearm.errors import SpecError

Row = tuple[float, float, float, float, float]  # severity 1 to 5
SMALL, LARGE = 32, 224  # pixels


def side(x: Tensor) -> int:
    """Pixels of the shorter edge of `x` (`n c h w`)."""
    return min(x.shape[2], x.shape[3])


def strength(x: Tensor, severity: int, small: Row, large: Row | None = None) -> float:
    """The value for pictures of the size of `x`: `small` up to 32 pixels, `large` from 224, linear in log(side) between (None: `small` for all)."""
    at = index(severity)
    if large is None:
        return small[at]
    part = math.log(side(x) / SMALL) / math.log(LARGE / SMALL)
    part = min(1.0, max(0.0, part))
    return small[at] + part * (large[at] - small[at])


def length(x: Tensor, severity: int, small: Row, large: Row) -> float:
    """`strength` of a length in pixels: below 32 pixels and above 224 in proportion to the side."""
    edge = side(x)
    return strength(x, severity, small, large) * (edge / min(LARGE, max(SMALL, edge)))


def index(severity: int) -> int:
    """The place of a severity in a row, 0 to 4. SpecError for anything but a whole number from 1 to 5."""
    if isinstance(severity, bool) or not isinstance(severity, int) or not 1 <= severity <= 5:
        raise SpecError(f"severity: got {severity!r}; a whole number from 1 to 5, for example 3")
    return severity - 1
