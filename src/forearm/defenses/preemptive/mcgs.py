"""MCGS, the minimal cascade gradient smoothing of MSPD (Wang et al., arXiv 2407.15524): an epoch forward, then one backward.

Writing S(c, d) for `smooth_gradient` around a centre c, with d = -1 lowering the loss and d = +1 raising it, and P for the projection on the
eps ball around the *original* picture x and on [0, 1]:

    forward   x <- P( x_c + rate (S(x_c, -1) - x_c) )
    backward  x <- P( x_c - rate (S(x_c, +1) - x_c) )

where x_c is the picture as the epochs before left it. MSPD is one epoch of each (F1-B1).
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.core.gradients import Classifier, input_gradient
from forearm.core.noise import Noise
from forearm.core.norms import LINF
from forearm.core.publishing import Published, chosen, family
from forearm.core.threat import Threat
from forearm.defenses.preemptive.aims import aim_named, shape_named
from forearm.errors import SpecError

DRAWS = ("uniform", "antithetic", "stratified")
PIXELS_AT_ONCE = 800_000  # values of all copies that are in memory together: about what stays in the caches, with the activations


def smooth_gradient(
    model: Classifier,
    centre: Tensor,
    y: Tensor,
    direction: float,
    *,
    threat: Threat,
    noise: Noise,
    copies: int = 20,
    inner: int = 1,
    step: float = 1.0,
    spread: float = 1.0,
    grid: tuple[int, int] | None = None,
    draw: str = "uniform",
    aim: str = "ce",
    shape: str = "none",
    survive: str = "none",
) -> Tensor:
    """The mean of the end points of `copies` noisy copies of `centre` (`n c h w`), each moved `inner` times along its own gradient's sign.

        z_i = clip01(c + spread U[-eps, eps]);   inner times: z_i <- clip01 P_{c +- eps}( z_i + direction step eps sign grad CE(f(z_i), y) )

    `step` and `spread` are in units of eps. For an L2 threat the sign is the unit gradient and the noise is uniform in the L2 ball.
    `grid` (rows, columns) draws the noise on a coarser grid and repeats it over each cell: where the model looks at a picture through a
    resize, noise of single pixels would be averaged away before it is seen (a departure: the paper's pictures have the model's own size).
    Beyond the paper: `draw` spreads the copies (`draws`), `aim` is another loss than the cross-entropy and `shape` filters each gradient before
    its sign is taken (`aims`). `survive` names a family of publishing chains (`core.publishing`): each copy is seen through one of them, drawn
    by `noise`, at the same number of passes; "none" leaves them out.

    Cost: `copies * inner` forward and backward passes. The copies go through the model together, as many as `PIXELS_AT_ONCE` allows.
    """
    loss, shaped, chains = aim_named(aim), shape_named(shape), family(survive)
    choice = chosen(noise, centre, copies, len(chains)) if any(chain.steps for chain in chains) else None
    together = max(1, min(copies, PIXELS_AT_ONCE // centre.numel()))
    drawn = draws(centre, copies, draw=draw, threat=threat, noise=noise, grid=grid, together=together)
    total = torch.zeros_like(centre)
    for first in range(0, copies, together):
        k = min(together, copies - first)
        c = centre.repeat(k, 1, 1, 1)
        z = c
        if spread:
            z = c + spread * torch.cat([next(drawn) for _ in range(k)])
            z = z.clamp_(0.0, 1.0)
        look = model if choice is None else Published(model, chains, choice[first : first + k].flatten())
        for _ in range(inner):
            gradient, _ = input_gradient(look, z, y.repeat(k), loss)
            z = threat.project(z + (direction * step * threat.eps) * threat.norm.steepest(shaped(gradient)), c)
        for end in z.chunk(k):
            total += end
    return total / copies


def draws(
    like: Tensor, copies: int, *, draw: str, threat: Threat, noise: Noise, grid: tuple[int, int] | None, together: int = 1
) -> Iterator[Tensor]:
    """The noise of each copy in turn (`n c h w`, in the eps ball), each uniform in the ball if taken alone.

    "uniform": independent copies. "antithetic": copies in pairs u, -u (an odd last one alone), so that whatever is odd in the noise cancels
    (Hammersley and Morton, 1956). "stratified", for Linf: in each value the copies lie one in each of `copies` equal parts of [-eps, eps], in
    an order that is drawn anew for each value (Latin hypercube sampling, McKay et al., Technometrics 1979); it holds all copies' noise at once.
    `grid` (rows, columns): drawn on that grid and repeated over its cells. `together`: how many are made at once, where that is faster; the numbers
    are the same. SpecError for another draw, or "stratified" for another norm.
    """
    if draw not in DRAWS:
        raise SpecError(f"draw: got {draw!r}; one of {', '.join(DRAWS)}, for example 'antithetic'")
    if draw == "stratified":
        yield from _stratified(like, copies, threat, noise, grid)
        return
    if draw == "uniform" and threat.norm is LINF:
        cells = like if grid is None else like.new_empty(*like.shape[:2], *grid)
        for first in range(0, copies, together):
            for drawn in noise.uniforms(cells, min(together, copies - first), -threat.eps, threat.eps):
                yield _repeated(drawn, like, grid)
        return
    cells = like
    for copy in range(copies):
        opposite = draw == "antithetic" and copy % 2 == 1
        cells = -cells if opposite else _cells(like, threat, noise, grid)
        yield cells


def _stratified(like: Tensor, copies: int, threat: Threat, noise: Noise, grid: tuple[int, int] | None) -> Iterator[Tensor]:
    if threat.norm is not LINF:
        raise SpecError(f"draw: got 'stratified' for {threat}; a linf threat, or draw='antithetic'")
    cells = like if grid is None else like.new_empty(*like.shape[:2], *grid)
    order = torch.stack([noise.uniform(cells) for _ in range(copies)]).argsort(0).argsort(0)
    for rank in order:
        share = (rank + noise.uniform(cells)) / copies
        yield _repeated(threat.eps * (2.0 * share - 1.0), like, grid)


def _cells(like: Tensor, threat: Threat, noise: Noise, grid: tuple[int, int] | None) -> Tensor:
    """One draw from the eps ball, per pixel or per cell of the grid."""
    if grid is None:
        return threat.norm.sample(like, threat.eps, noise)
    return _repeated(threat.norm.sample(like.new_empty(*like.shape[:2], *grid), threat.eps, noise), like, grid)


def _repeated(cells: Tensor, like: Tensor, grid: tuple[int, int] | None) -> Tensor:
    return cells if grid is None else F.interpolate(cells, like.shape[2:], mode="nearest")


def mcgs(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    copies: int = 20,
    forward: int = 1,
    backward: int = 1,
    inner: int = 1,
    rate: float = 1.0,
    step: float = 1.0,
    spread: float = 1.0,
    grid: tuple[int, int] | None = None,
    draw: str = "uniform",
    aim: str = "ce",
    back: str = "ce",
    shape: str = "none",
    survive: str = "none",
) -> Tensor:
    """Pictures `x` (`n c h w`, [0, 1]) hardened towards the classes `y` on the backbone `model`: the cascade F_forward-B_backward.

    The result is float in [0, 1] within `threat` of `x`; it is published as 8 bits (`core.quantize.release`). `rate` scales an epoch's move,
    `step` (in units of eps) the move inside it. Labels may be the labeller's, the backbone's own or the user's: this function does not ask.
    `draw`, `aim` (the forward epochs' loss), `back` (the backward epochs'), `shape` and `survive` are those of `smooth_gradient`; the defaults are MSPD.
    Cost: `(forward + backward) * copies * inner` forward and backward passes. Source: arXiv 2407.15524, figure 4 for the general cascade.
    """
    release = x
    for sign, epochs, loss in ((-1.0, forward, aim), (1.0, backward, back)):
        for _ in range(epochs):
            end = smooth_gradient(
                model, release, y, sign, threat=threat, noise=noise, copies=copies, inner=inner, step=step, spread=spread, grid=grid,
                draw=draw, aim=loss, shape=shape, survive=survive,
            )  # fmt: skip
            release = threat.project(release - sign * rate * (end - release), x)
    return release


def fast_preemption(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    """The three-step forerunner of MSPD (arXiv 2407.15524, versions 1 to 7), read as F1-B2 without smoothing. Cost: 3 gradients."""
    return mcgs(model, x, y, threat=threat, noise=noise, copies=1, forward=1, backward=2, spread=0.0)
