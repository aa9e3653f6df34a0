"""Bi-level robustification (Moon, An and Song, AAAI 2022): the picture nearby whose worst neighbour is classified best."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from forearm.core.gradients import Classifier, input_gradient
from forearm.core.losses import cross_entropy
from forearm.core.noise import Noise
from forearm.core.norms import LINF
from forearm.core.threat import Threat
from forearm.errors import SpecError

THROUGH = ("steps", "end", "curvature")
INSIDE = 0.9995  # how far towards the border a start may lie: at 1 its place in tanh space would be infinite


def bilevel(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 100,
    inner: int = 20,
    step: float = 0.25,
    rate: float = 0.1,
    through: str = "steps",
) -> Tensor:
    """Pictures `x` (`n c h w`, [0, 1]) moved within `threat` to where PGD with `inner` steps raises the loss of `y` least.

        min over x' in B(x, eps)  of  max over z in B(x', eps)  of  CE(f(z), y)
        Linf    x' = (a + b)/2 + (b - a)/2 tanh(w),   a, b the borders of the eps box in [0, 1];   w <- RMSprop(w, rate, dL/dw)
        others  x' <- P( x' - rate eps d(dL/dx') ),   d the steepest direction of the norm
        L = CE(f(z_inner), y);   z_0 = clip01(x' + U(ball));   z_{k+1} = P_{x'}( z_k + step eps d(grad CE(f(z_k), y)) )

    from a random x' of the ball. `step` is in units of eps (.25 is the paper's 2/255 of 8/255, and .125 of .5 for L2). `through` says how
    dL/dx' goes back through the attack: "steps", through each projection and box with the inner gradients held constant (the authors' code,
    `hessian: false`); "curvature", through those gradients too (second order; the signs of Linf have no derivative, so there it is "steps" at a
    higher price); "end", not at all: the gradient at z_inner counts as that at x' (first order). Away from the box's borders the three are the
    same for Linf. Departure: for L2 the authors' code steps along the raw gradient with a rate that depends on the net (.001 and .005); ours is
    in units of eps. Cost: `steps * (inner + 1)` gradients, 2,100 as published; "curvature" differentiates each inner one once more.
    SpecError for another `through`. Source: AAAI 2022, arXiv 2112.05634, and its published code.
    """
    if through not in THROUGH:
        raise SpecError(f"through: got {through!r}; one of {', '.join(THROUGH)}, for example 'steps'")
    release = threat.sample(x, noise)
    box = Box.around(x, threat.eps) if threat.norm is LINF else None
    w = box.inverse(release) if box else release
    mean_square = torch.zeros_like(x)
    for _ in range(steps):
        gradient = outer_gradient(model, release, y, threat=threat, noise=noise, inner=inner, step=step, through=through)
        if box:
            w, mean_square = rmsprop(w, gradient * box.slope(w), mean_square, rate)
            release = box.place(w)
        else:
            release = threat.project(release - rate * threat.eps * threat.norm.steepest(gradient), x)
    return threat.project(release, x)


def outer_gradient(
    model: Classifier, release: Tensor, y: Tensor, *, threat: Threat, noise: Noise, inner: int, step: float, through: str
) -> Tensor:
    """The gradient, at `release` (`n c h w`), of the loss that PGD from a random point around it reaches. Cost: `inner + 1` gradients."""
    size = step * threat.eps
    start = threat.norm.sample(release, threat.eps, noise)
    if through == "end":
        z = (release + start).clamp(0.0, 1.0)
        for _ in range(inner):
            gradient, _ = input_gradient(model, z, y)
            z = threat.project(z + size * threat.norm.steepest(gradient), release)
        return input_gradient(model, z, y)[0]
    with torch.enable_grad():
        release = release.detach().requires_grad_()
        z = (release + start).clamp(0.0, 1.0)
        for _ in range(inner):
            (gradient,) = torch.autograd.grad(_loss(model, z, y), z, create_graph=through == "curvature")
            z = threat.project(z + size * threat.norm.steepest(gradient), release)
        (gradient,) = torch.autograd.grad(_loss(model, z, y), release)
    return gradient


def _loss(model: Classifier, z: Tensor, y: Tensor) -> Tensor:
    logits = model(z)
    return cross_entropy(logits if logits.dtype == torch.float64 else logits.float(), y).sum()


@dataclass(frozen=True, slots=True)
class Box:
    """The pictures within eps of x in every value and in [0, 1], as tanh space: `place` reaches all of its inside and nothing else."""

    middle: Tensor
    half: Tensor  # 0 where eps is 0, or where only one value is allowed

    @classmethod
    def around(cls, x: Tensor, eps: float) -> Box:
        """The box of pictures `n c h w`."""
        low, high = (x - eps).clamp_min(0.0), (x + eps).clamp_max(1.0)
        return cls((low + high) / 2, (high - low) / 2)

    def place(self, w: Tensor) -> Tensor:
        """Tanh space -> pictures."""
        return self.middle + self.half * torch.tanh(w)

    def inverse(self, x: Tensor) -> Tensor:
        """Pictures of the box -> tanh space; what lies on the border goes just inside."""
        share = (x - self.middle) / self.half.clamp_min(torch.finfo(x.dtype).tiny)
        return torch.atanh(INSIDE * share.clamp(-1.0, 1.0))

    def slope(self, w: Tensor) -> Tensor:
        """d place / d w, in each value."""
        return self.half * (1.0 - torch.tanh(w).square())


def rmsprop(w: Tensor, gradient: Tensor, mean_square: Tensor, rate: float) -> tuple[Tensor, Tensor]:
    """One step of RMSprop (Hinton, 2012) with torch's constants: v <- .99 v + .01 g^2;  w <- w - rate g / (sqrt(v) + 1e-8)."""
    mean_square = 0.99 * mean_square + 0.01 * gradient.square()
    return w - rate * gradient / (mean_square.sqrt() + 1e-8), mean_square
