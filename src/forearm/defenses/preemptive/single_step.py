"""The cheap rivals of MSPD: descend the loss of the label, in one step or in several (Moon et al., AAAI 2022, as baselines)."""

from __future__ import annotations

from torch import Tensor

from forearm.core.gradients import Classifier, input_gradient
from forearm.core.noise import Noise
from forearm.core.threat import Threat


def s_fgsm(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    """One step of full budget towards the label: P( x - eps sign grad CE(f(x), y) ). Cost: one gradient. `noise` is not used."""
    return s_pgd(model, x, y, threat=threat, noise=noise, steps=1, step=1.0)


def s_pgd(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise, steps: int = 20, step: float = 0.25) -> Tensor:
    """Projected gradient towards the label, from the picture itself; `step` in units of eps. Cost: `steps` gradients. `noise` is not used."""
    release = x
    for _ in range(steps):
        gradient, _ = input_gradient(model, release, y)
        release = threat.project(release - step * threat.eps * threat.norm.steepest(gradient), x)
    return release


def none(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    """The picture as it is: the control of every table."""
    return x
