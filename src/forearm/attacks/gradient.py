"""What attacks ask of a model: the direction that raises their loss, and the verdict on a point."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from forearm.core import losses
from forearm.core.gradients import Classifier, input_gradient
from forearm.core.losses import LOSSES, Loss
from forearm.core.threat import Threat
from forearm.errors import SpecError

VANISHED = 1e-18  # a gradient whose largest entry is below this has underflowed: its squares are zero in float32


def loss_named(name: str) -> Loss:
    """A loss of `core.losses.LOSSES` by name."""
    if name not in LOSSES:
        raise SpecError(f"loss: got {name!r}; one of {', '.join(LOSSES)}, for example 'ce'")
    return {"ce": cross_entropy, "dlr": _dlr}.get(name, LOSSES[name])


def cross_entropy(logits: Tensor, y: Tensor) -> Tensor:
    """-log softmax(logits)[y] (`n`), with a gradient that is exact to the last bits for over-confident models too.

        -log p_y = log(1 + exp(o)),   o = log sum_{k != y} exp(z_k) - z_y the log-odds against y

    The usual form takes p_y - 1 for the part of z_y. Where p_y comes near 1, in float32 from a margin of about 10 on,
    that is a rounding error, and what remains pulls towards the wrong classes without pulling away from y: PGD then
    leaves standing what it brings down on the same model with smaller logits.
    """
    own = logits.gather(1, y[:, None]).squeeze(1)
    return F.softplus(logits.scatter(1, y[:, None], float("-inf")).logsumexp(1) - own)


def _dlr(logits: Tensor, y: Tensor) -> Tensor:
    """The difference of logits ratio needs three classes; for two, the margin."""
    return losses.dlr(logits, y) if logits.shape[1] > 2 else losses.margin(logits, y)


def ascent_gradient(
    model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, loss: Loss = cross_entropy, copies: int = 1
) -> tuple[Tensor, Tensor]:
    """The direction that brings the attacker forward (`n c h w`), and the logits (`n k`): the gradient of `loss`,
    negated for a targeted threat.

    Where the gradient of an example has vanished (an over-confident model: softmax rounds to 1 in float32) that example
    gets the gradient of the margin instead, and entries that are not finite count as 0. `copies` passes of a model that
    draws its own randomness are averaged (expectation over transformation, Athalye et al., ICML 2018). Cost: `copies`
    forward and backward passes, one more for the vanished examples.
    """
    gradient, logits = _mean_gradient(model, x, y, loss, copies)
    vanished = ~(gradient.flatten(1).abs().amax(1) > VANISHED)
    if vanished.any():
        gradient[vanished] = _mean_gradient(model, x[vanished], y[vanished], losses.margin, copies)[0].to(gradient.dtype)
    return (-gradient if threat.targeted else gradient), logits


def _mean_gradient(model: Classifier, x: Tensor, y: Tensor, loss: Loss, copies: int) -> tuple[Tensor, Tensor]:
    gradient, logits = input_gradient(model, x, y, loss)
    for _ in range(copies - 1):
        g, z = input_gradient(model, x, y, loss)
        gradient, logits = gradient + g, logits + z
    if copies > 1:
        gradient, logits = gradient / copies, logits / copies
    return gradient.nan_to_num(0.0, 0.0, 0.0), logits


def class_gradients(model: Classifier, x: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of the logits `classes` (`n m`) of each picture (`n m c h w`), and all logits (`n k`).

    Cost: one forward and m backward passes.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        chosen = logits.gather(1, classes)
        rows = [torch.autograd.grad(column.sum(), x, retain_graph=True)[0] for column in chosen.unbind(1)]
    return torch.stack(rows, 1).nan_to_num(0.0, 0.0, 0.0), logits.detach()


def logits_of(model: Classifier, x: Tensor) -> Tensor:
    """The logits of `x` (`n k`) in float32 or wider, without a graph. Cost: one forward pass."""
    with torch.no_grad():
        logits = model(x)
    return logits if logits.dtype == torch.float64 else logits.float()


def margins(model: Classifier, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """How far the attacker has won at `x` (`n`): above 0 is success;

    a model that answers NaN counts as minus infinity.
    """
    return threat.margin(logits_of(model, x), y).nan_to_num(float("-inf"), float("inf"), float("-inf"))


def confirmed(model: Classifier, twin: Classifier | None, logits: Tensor, x: Tensor, y: Tensor, threat: Threat) -> Tensor:
    """The margins that `logits` of `x` give; where they are a twin's and claim success, those of `model` itself.

    A twin is a faster copy of the model (bf16, batch norm folded) that gradients are taken on: it may guide, never
    decide.
    """
    claimed = threat.margin(logits, y).nan_to_num(float("-inf"), float("inf"), float("-inf"))
    if twin is not None and (won := claimed > 0).any():
        claimed = claimed.masked_scatter(won, margins(model, x[won], y[won], threat).to(claimed.dtype))
    return claimed
