"""The augmentation of the challenge: each of its 32 operations with a small probability, one after the other."""

from __future__ import annotations

import torch
from torch import Tensor

from forearm.core.noise import Noise
from forearm.data.corruptions.table import CORRUPTIONS
from forearm.errors import SpecError
from forearm.registry import resolve


def challenge_augment(x: Tensor, *, noise: Noise, p: float = 0.05) -> Tensor:
    """`x` (`n c h w` in [0, 1]) after each operation of `CORRUPTIONS`, in that order, with probability `p` each, at a severity uniform in 1 to 5.

    Each picture draws for itself, so its result depends on no batch; an operation is computed for those pictures alone that drew it. `p` = 0.05 as
    published, which is 1.6 operations a picture. SpecError for `p` outside [0, 1]. Source: Pei et al., arXiv 2205.10617, section 4.
    """
    if isinstance(p, bool) or not isinstance(p, int | float) or not 0.0 <= p <= 1.0:
        raise SpecError(f"challenge: got p={p!r}; a probability from 0 to 1, for example 0.05")
    like = torch.empty(len(x), len(CORRUPTIONS), dtype=torch.float64)
    draw = noise.stream("challenge")
    drawn = draw.uniform(like) < p
    severities = torch.where(drawn, draw.integers(like, 5) + 1, 0)
    x = x.clone()
    for i, name in enumerate(CORRUPTIONS):
        operation, own = resolve(CORRUPTIONS, name), noise.stream(name)
        for severity in range(1, 6):
            place = (severities[:, i] == severity).nonzero().squeeze(1)
            if len(place):
                x[place.to(x.device)] = operation(x[place.to(x.device)], noise=own.at(place), severity=severity)
    return x
