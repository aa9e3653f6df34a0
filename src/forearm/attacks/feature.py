"""Fast feature attack: move the representation, not the loss (after Sabour et al., ICLR 2016)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from forearm.attacks.best import Best
from forearm.attacks.gradient import margins
from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.threat import Threat


def ffa(
    model: Classifier,
    x: Tensor,
    y: Tensor,
    *,
    threat: Threat,
    noise: Noise,
    steps: int = 20,
    step: float | None = None,
    layer: str = "",
    guide: Tensor | None = None,
) -> Tensor:
    """The iterate with the highest margin of an ascent on the distance of the features from the picture's own.

        x_{k+1} = P( x_k + step eps d(grad |phi(x_k) - phi(x)|^2) ),   or, with a guide, - grad |phi(x_k) -
        phi(guide)|^2

    from a random point of the ball. phi is the output of the submodule `layer`; where it is empty, what goes into the
    last linear layer, and the logits for a model that has none. `guide`: pictures to imitate (`n` or 1, c h w); the
    paper has only this form, which a targeted threat needs. `step` is in units of eps, 2.5 / steps where it is None.
    Cost: `steps` + 1 forward and `steps` backward passes, and one forward pass. Source: arXiv 1511.05122, eq. 1, by
    signed gradient steps.
    """
    size = (2.5 / steps if step is None else step) * threat.eps
    with torch.no_grad():
        goal, _ = representation(model, x if guide is None else guide.expand_as(x), layer)
    sign = 1.0 if guide is None else -1.0
    best, everyone = Best.of(x), torch.arange(len(x), device=x.device)
    x_adv = threat.sample(x, noise)
    for _ in range(steps):
        with torch.enable_grad():
            point = x_adv.detach().requires_grad_()
            phi, logits = representation(model, point, layer)
            (gradient,) = torch.autograd.grad(sign * (phi - goal).square().sum(), point)
        best.take(everyone, x_adv, threat.margin(logits.detach(), y))
        x_adv = threat.project(x_adv + size * threat.norm.steepest(gradient.nan_to_num(0.0, 0.0, 0.0)), x)
    best.take(everyone, x_adv, margins(model, x_adv, y, threat))
    return best.x_adv


def representation(model: Classifier, x: Tensor, layer: str = "") -> tuple[Tensor, Tensor]:
    """The features of `x` (`n d`) as `ffa` describes them, and the logits. Cost: one forward pass;

    no hook stays behind.
    """
    held: list[Tensor] = []
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)] if isinstance(model, nn.Module) else []
    if isinstance(model, nn.Module) and layer:
        handle = model.get_submodule(layer).register_forward_hook(lambda _, __, output: held.append(output))
    elif linear:
        handle = linear[-1].register_forward_pre_hook(lambda _, given: held.append(given[0]))
    else:
        logits = _wide(model(x))
        return logits, logits
    try:
        logits = _wide(model(x))
    finally:
        handle.remove()
    return _wide(held[-1]).flatten(1), logits


def _wide(t: Tensor) -> Tensor:
    return t if t.dtype == torch.float64 else t.float()
