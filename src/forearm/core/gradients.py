"""Input gradients. No parameter gradient is computed or stored, no generator is touched."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from forearm.core.losses import Loss, cross_entropy

Classifier = Callable[[Tensor], Tensor]  # RGB in [0, 1] `n c h w` -> logits `n k`


def input_gradient(model: Classifier, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> tuple[Tensor, Tensor]:
    """The gradient of `loss(model(x), y)` with respect to each picture (`n c h w`), and the logits (`n k`).

    The logits are float32 or wider. Each example's gradient is that of its own loss (the losses are summed).
    Cost: one forward and one backward pass.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        logits = model(x)
        logits = logits if logits.dtype == torch.float64 else logits.float()
        (gradient,) = torch.autograd.grad(loss(logits, y).sum(), x)
    return gradient, logits.detach()
