"""What a preemptive step lowers or raises (the aim), and how its gradient is shaped before the sign is taken."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

from forearm.core.losses import Loss, cross_entropy, margin
from forearm.errors import SpecError


def runners(logits: Tensor, y: Tensor) -> Tensor:
    """The mean of the other logits minus the logit of y: every other class counts alike, the near and the far."""
    own = logits.gather(1, y[:, None]).squeeze(1)
    return (logits.sum(1) - own) / (logits.shape[1] - 1) - own


def luma(gradient: Tensor) -> Tensor:
    """The same in every channel, their mean: the change is one of brightness alone."""
    return gradient.mean(1, keepdim=True).expand_as(gradient)


def low(gradient: Tensor) -> Tensor:
    """What is left of each channel after a binomial blur of 5 x 5 (1 4 6 4 1, edges repeated): neighbours mostly take the same sign."""
    row = gradient.new_tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    channels = gradient.shape[1]
    padded = F.pad(gradient, (2, 2, 2, 2), mode="replicate")
    across = F.conv2d(padded, row.reshape(1, 1, 1, 5).repeat(channels, 1, 1, 1), groups=channels)
    return F.conv2d(across, row.reshape(1, 1, 5, 1).repeat(channels, 1, 1, 1), groups=channels)


def _same(gradient: Tensor) -> Tensor:
    return gradient


AIMS: dict[str, Loss] = {"ce": cross_entropy, "margin": margin, "runners": runners}
SHAPES: dict[str, Callable[[Tensor], Tensor]] = {"none": _same, "luma": luma, "low": low}


def aim_named(name: str) -> Loss:
    """A loss by name, of one family: what each lowers is a competitor's logit minus that of y.

    The competitor is the strongest other class ("margin"), the log-sum-exp of them ("ce": its gradient is (1 - p_y) times that of the
    difference, and a sign does not see the factor) or their mean ("runners"). SpecError for another name.
    """
    if name not in AIMS:
        raise SpecError(f"aim: got {name!r}; one of {', '.join(AIMS)}, for example 'ce'")
    return AIMS[name]


def shape_named(name: str) -> Callable[[Tensor], Tensor]:
    """A filter of gradients (`n c h w` -> `n c h w`) by name. SpecError for another name."""
    if name not in SHAPES:
        raise SpecError(f"shape: got {name!r}; one of {', '.join(SHAPES)}, for example 'low'")
    return SHAPES[name]
