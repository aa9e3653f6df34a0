"""Training recipes: plain, and adversarial with N-FGSM or PGD. Each returns a `Step` for the loop."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.core.threat import Threat
from forearm.data.batches import Batch
from forearm.defenses.training.loop import Step
from forearm.errors import SpecError


@contextmanager
def frozen_statistics(model: nn.Module) -> Iterator[None]:
    """Batch norm still normalises by the batch, but its running statistics do not see the attack's own passes."""
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [m.momentum for m in norms]
    for m in norms:
        m.momentum = 0.0
    try:
        yield
    finally:
        for m, momentum in zip(norms, kept, strict=True):
            m.momentum = momentum


def input_gradient(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """The gradient of the cross-entropy with respect to the pictures alone; parameters are left out of the backward pass."""
    x = x.detach().requires_grad_()
    with frozen_statistics(model):
        loss = F.cross_entropy(model(x).float(), y)
    return torch.autograd.grad(loss, x)[0]


def nfgsm(model: nn.Module, batch: Batch, threat: Threat, reach: float = 2.0) -> Tensor:
    """One step from strong noise, not projected back (de Jorge et al., NeurIPS 2022, algorithm 1): x + eta + eps sign(grad), eta = U[-reach eps, reach eps].

    Cost: one forward and one backward pass.
    """
    eta = torch.empty_like(batch.x).uniform_(-reach, reach, generator=_generator(batch)) * threat.eps
    gradient = input_gradient(model, batch.x + eta, batch.y)
    return (batch.x + eta + threat.eps * gradient.sign()).clamp(0.0, 1.0)


def pgd(model: nn.Module, batch: Batch, threat: Threat, steps: int = 10, step: float = 0.25) -> Tensor:
    """Projected gradient from a random start (Madry et al., ICLR 2018, eq. 3), `step` in units of eps. Cost: `steps` forward and backward passes."""
    start = torch.empty_like(batch.x).uniform_(-1.0, 1.0, generator=_generator(batch)) * threat.eps
    x_adv = (batch.x + start).clamp(0.0, 1.0)
    for _ in range(steps):
        gradient = input_gradient(model, x_adv, batch.y)
        x_adv = threat.project(x_adv + step * threat.eps * threat.norm.steepest(gradient), batch.x)
    return x_adv


def _generator(batch: Batch) -> torch.Generator:
    """A generator that depends on the batch alone, so that a resumed run draws the same numbers."""
    key = int((batch.ids * torch.arange(1, len(batch.ids) + 1)).sum()) + int(batch.x.double().sum() * 1e3)
    return torch.Generator(batch.x.device).manual_seed(key % (1 << 62))


def standard(smoothing: float = 0.0) -> Step:
    """Cross-entropy on the pictures as they are, with label smoothing."""

    def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.x).float()
        loss = F.cross_entropy(logits, batch.y, label_smoothing=smoothing)
        return {"loss": loss, "accuracy": (logits.argmax(1) == batch.y).float().mean()}

    return step


def adversarial(threat: Threat, steps: int = 0, reach: float = 2.0, smoothing: float = 0.0, step: float = 0.25, clean: float = 0.0) -> Step:
    """Cross-entropy on adversarial pictures: N-FGSM where `steps` is 0, PGD with that many steps (each `step` in units of eps) otherwise.

        (1 - clean) CE(f(x_adv), y) + clean CE(f(x), y)

    `clean`, from 0 to below 1, is the weight of the pictures as they are (Goodfellow et al., ICLR 2015, eq. of section 6, has one half). At a large
    radius and few steps of training, attacked pictures alone may leave a net at the constant answer. Cost: the attack's passes, a forward and
    backward pass, and with `clean` a second. SpecError for `clean` out of range.
    """
    if not 0.0 <= clean < 1.0:
        raise SpecError(f"adversarial: got clean={clean:g}; from 0 to below 1, for example clean=0.5")

    def train(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        x_adv = pgd(model, batch, threat, steps, step) if steps else nfgsm(model, batch, threat, reach)
        logits = model(x_adv.contiguous(memory_format=torch.channels_last)).float()
        loss = F.cross_entropy(logits, batch.y, label_smoothing=smoothing)
        if clean:
            as_they_are = F.cross_entropy(model(batch.x).float(), batch.y, label_smoothing=smoothing)
            loss = (1.0 - clean) * loss + clean * as_they_are
        return {"loss": loss, "accuracy": (logits.argmax(1) == batch.y).float().mean()}

    return train
