"""MSPD with few copies, then steps against the worst neighbour that a short attack finds: the bi-level aim at a small share of its cost."""

from __future__ import annotations

from torch import Tensor

from forearm.core.gradients import Classifier, input_gradient
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.defenses.preemptive.mcgs import mcgs


def polish(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    copies: int = 2,
    steps: int = 12,
    inner: int = 2,
    step: float = 0.6,
    rate: float = 0.3,
    grid: tuple[int, int] | None = None,
) -> Tensor:
    """Pictures `x` (`n c h w`, [0, 1]) as MSPD with `copies` leaves them, then moved against their own worst neighbour.

        z_0 = x_k;  inner times z <- P_{x_k}( z + step eps d(grad CE(f(z), y)) );    x_{k+1} = P( x_k - rate (1 - k/steps) eps d(grad CE(f(z), y)) )

    with d the steepest direction of the norm, `step` and `rate` in units of eps; the moves shrink to rate / steps. It is the first-order
    reading of `bilevel` with a better start and signs for RMSprop. `grid` as for `mcgs`, for its copies. Cost: `2 copies + steps (inner + 1)`
    gradients, 40 as it stands, where `bilevel` takes 2,100. Source: this project, after Moon et al., AAAI 2022.
    """
    release = mcgs(model, x, y, threat=threat, noise=noise, copies=copies, grid=grid)
    for k in range(steps):
        z = release
        for _ in range(inner):
            gradient, _ = input_gradient(model, z, y)
            z = threat.project(z + step * threat.eps * threat.norm.steepest(gradient), release)
        gradient, _ = input_gradient(model, z, y)
        size = rate * (1.0 - k / steps) * threat.eps
        release = threat.project(release - size * threat.norm.steepest(gradient), x)
    return release
