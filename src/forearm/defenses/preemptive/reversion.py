"""Preemptive Reversion: what an attacker who knows backbone and settings does first (arXiv 2407.15524)."""

from __future__ import annotations

from torch import Tensor

from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.defenses.preemptive.protector import Protector


def revert(model: Classifier, released: Tensor, *, protector: Protector, threat: Threat, noise: Noise) -> Tensor:
    """An estimate of the undefended picture: protect the release again, and take the change off: 2 p - protector(p).

    The label is what the backbone predicts on the release. The result is not projected and may leave [0, 1] by up to eps; rounding to 8 bits
    clips it. On a linear model, and where neither the box nor the rounding touches a pixel, it is exact. Cost: the protector's, and one pass.
    """
    y = model(released).argmax(1)
    return 2.0 * released - protector(model, released, y, threat=threat, noise=noise)
