"""TRADES (Zhang et al., ICML 2019): accuracy on clean pictures, and the same answer all over the ball."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.data.batches import Batch
from forearm.defenses.training.adversarial import frozen_statistics
from forearm.defenses.training.loop import Step
from forearm.errors import SpecError


def trades(threat: Threat, *, beta: float = 6.0, steps: int = 10, step: float = 0.25, seed: int = 0) -> Step:
    """CE(f(x), y) + beta max over the ball of KL( p(x) || p(x') ), p = softmax f (arXiv 1901.08573, eq. 5).

    x' by `steps` ascents of the divergence from a random point of the ball, `step` in units of eps. Two departures from the authors' code: the start
    (there x plus a Gaussian of 0.001, which is next to a stationary point of the divergence) and the mode in which x' is made (there eval mode; here
    the batch norm of training, whose running statistics do not see these passes). SpecError for a beta or a number of steps below 0.
    Cost: `steps` forward and backward passes, and two more.
    """
    if beta < 0.0 or steps < 0:
        raise SpecError(f"trades: got beta={beta!r}, steps={steps!r}; both 0 or more, for example beta=6, steps=10")

    def train(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x_adv = diverging(model, batch, threat, steps, step, seed)
        logits = model(batch.x).float()
        label = F.cross_entropy(logits, batch.y)
        apart = kl(logits, model(x_adv).float())
        return {"loss": label + beta * apart, "divergence": apart, "accuracy": (logits.argmax(1) == batch.y).float().mean()}

    return train


def kl(clean: Tensor, attacked: Tensor) -> Tensor:
    """KL( softmax(clean) || softmax(attacked) ): logits `n k` twice -> the mean over the batch."""
    p, q = clean.log_softmax(1), attacked.log_softmax(1)
    return (p.exp() * (p - q)).sum(1).mean()


def diverging(model: nn.Module, batch: Batch, threat: Threat, steps: int, step: float, seed: int = 0) -> Tensor:
    """The end of an ascent of `kl` from a random point of the ball (`n c h w`), the clean side held fixed. The start depends on (seed, ids) alone."""
    with frozen_statistics(model), torch.no_grad():
        clean = model(batch.x).float()
    x_adv = threat.sample(batch.x, Noise(seed, batch.ids).stream("trades"))
    for _ in range(steps):
        point = x_adv.detach().requires_grad_()
        with frozen_statistics(model):
            (slope,) = torch.autograd.grad(kl(clean, model(point).float()), point)
        x_adv = threat.project(x_adv + step * threat.eps * threat.norm.steepest(slope), batch.x)
    return x_adv.detach()
