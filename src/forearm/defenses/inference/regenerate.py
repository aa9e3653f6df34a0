"""A student of MID as a purifier: a classifier looks at what the student's decoder makes of the picture."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol, Self, cast

import torch
from torch import Tensor, nn

from forearm.defenses.inference.hardened import Hardened
from forearm.errors import SpecError


class Regenerating(Protocol):
    """A network that makes pictures again from its own features: `n c h w` -> the same shape, in [0, 1]."""

    def regenerate(self, x: Tensor) -> Tensor: ...


def regenerate(model: nn.Module, *, student: Regenerating | None = None) -> nn.Module:
    """`model` on regenerated pictures, f(Dt(Es(x))): `n c h w` in [0, 1] -> logits `n k`.

    `student`: an autoencoder (a student of MID, or a denoiser), of which a frozen copy in eval mode is taken; in a defence's spec and in a matrix it is
    the name of a trained one, a model as `load_model` knows it: "regenerate(student='checkpoints/mnist_mid')". The copy goes where the model goes
    (device and type) and is no part of its weights: the state dict is the model's alone. It hides no gradient, so an attacker who knows it
    differentiates it as it is. SpecError for what cannot regenerate. Cost: a pass of the student's encoder, of its decoder and of the model.
    Source: arXiv 2404.03340, the regenerated image, there shown and not classified by others; Meng and Chen, CCS 2017, for denoisers.
    """
    if student is None or not callable(getattr(student, "regenerate", None)):
        raise SpecError(
            f"regenerate: got student={student!r}; a trained student of MID, for example \"regenerate(student='checkpoints/mnist_mid')\""
        )
    return Hardened(model, Regeneration(student, model))


class Regeneration(nn.Module):
    """`student.regenerate` as a module without weights: the student moves with it, and stays frozen and in eval mode."""

    def __init__(self, student: Regenerating, model: nn.Module) -> None:
        super().__init__()
        network = copy.deepcopy(cast(nn.Module, student)).eval().requires_grad_(False)
        like = next((p for p in model.parameters() if p.is_floating_point()), torch.empty(0))
        self.held = (network.to(like.device, like.dtype),)  # in a tuple: no part of the state dict or of the parameters

    def forward(self, x: Tensor) -> Tensor:
        """`n c h w` -> the same shape and type."""
        (student,) = self.held
        dtype = next(student.parameters()).dtype
        made: Tensor = cast(Regenerating, student).regenerate(x.to(dtype))
        return made.to(x.dtype)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """`to()`, `half()`, `cuda()`: the student too."""
        for student in self.held:
            cast(Any, student)._apply(fn, recurse)
        moved: Self = cast(Any, super())._apply(fn, recurse)
        return moved
