"""One signed step (Goodfellow et al., ICLR 2015) and its repetition (Kurakin et al., ICLR workshop 2017)."""

from __future__ import annotations

from torch import Tensor

from forearm.attacks.pgd import pgd
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat


def fgsm(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    loss: str = "ce",
    twin: Classifier | None = None,
) -> Tensor:
    """The end of one step of full size: clip( x + eps d(grad L(f(x), y)) ), d the steepest direction (Linf: the sign).
    `noise` is not used.

    Cost: one forward and backward pass, and one forward pass. Source: arXiv 1412.6572, section 4; L2 and L1 by the
    norm's own steepest direction.
    """
    return pgd(model, x, y, threat=threat, noise=noise, steps=1, step=1.0, loss=loss, random_start=False, twin=twin)


def bim(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 10,
    step: float | None = None,
    loss: str = "ce",
    stop: bool = False,
    twin: Classifier | None = None,
) -> Tensor:
    """The iterate with the highest margin of an ascent from the picture itself (basic iterative method). `noise` is not
    used.

    `step` is in units of eps, 2.5 / steps where it is None (the paper: one level of 8 bits, and min(eps + 4, 1.25 eps)
    steps). Cost: `steps` forward and backward passes and one forward pass. Source: arXiv 1607.02533, section 2.2.
    """
    return pgd(
        model,
        x,
        y,
        threat=threat,
        noise=noise,
        steps=steps,
        step=step,
        loss=loss,
        random_start=False,
        stop=stop,
        twin=twin,
    )
