"""A student of MID as a purifier: another classifier looks at what its decoder makes of the picture."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from forearm.defenses.inference.hardened import Hardened
from forearm.defenses.inference.purify import Purifier


class Regenerating(Protocol):
    """A network that makes pictures again from its own features: `n c h w` -> the same shape, in [0, 1]."""

    def regenerate(self, x: Tensor) -> Tensor: ...


def regenerate(model: nn.Module, *, student: Regenerating) -> nn.Module:
    """`model` on regenerated pictures, f(Dt(Es(x))): `n c h w` in [0, 1] -> logits `n k`.

    `student`: an autoencoder in eval mode, for example `load_model("checkpoints/mnist_mid").network`, on the model's device. The result has the
    state dict of `model` alone. It hides no gradient: whoever knows it differentiates it as it is. Cost: a pass of the student's encoder, of
    its decoder and of the model. Source: arXiv 2404.03340, the regenerated image, there shown and not classified by others.
    """
    return Hardened(model, Purifier(student.regenerate))
