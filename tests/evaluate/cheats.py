"""Attacks that return what they may not, by name: the engine must see each."""

from __future__ import annotations

import torch
from torch import Tensor

from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat


def too_far(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise, by: float = 1e-4) -> Tensor:
    """A hair outside of the ball in one picture, inwards from the box's walls."""
    x_adv = x.clone()
    x_adv[-1] = torch.where(x[-1] > 0.5, x[-1] - threat.eps * (1 + by), x[-1] + threat.eps * (1 + by))
    return x_adv


def unboxed(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    """Inside the ball, outside of [0, 1]: whatever the picture, one pixel of it goes there."""
    x_adv = x.clone()
    x_adv[-1, 0, 0, 0] = -threat.eps / 2
    return x_adv


def broken(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    """One value is not a number."""
    x_adv = x.clone()
    x_adv[-1, 1, 2, 3] = float("nan")
    return x_adv


def fewer(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    """One picture is missing."""
    return x[:-1]


def edge(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    """The surface of the ball, as float32 rounds it: no cheat."""
    return (x + threat.eps * noise.uniform(x, -1.0, 1.0).sign()).clamp(0.0, 1.0)


def still(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    """Nothing."""
    return x


def whitewash(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    """Grey, or as near to it as the ball allows."""
    return threat.project(torch.full_like(x, 0.5), x)
