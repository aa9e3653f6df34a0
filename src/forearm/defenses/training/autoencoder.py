"""Training a teacher of MID: a classifier whose features can be turned back into the picture, on clean pictures alone."""

from __future__ import annotations

from typing import Protocol, cast

import torch.nn.functional as F
from torch import Tensor, nn

from forearm.data.batches import Batch
from forearm.defenses.training.loop import Step


class Code(Protocol):
    """What an encoder says of pictures: features `n d ...`, and whatever else its decoder needs."""

    @property
    def features(self) -> Tensor: ...


class Coder(Protocol):
    """A network in three parts: `encoder` (pictures -> a code with `.features`), `decoder` (code -> pictures), `head` (features -> logits)."""

    encoder: nn.Module
    decoder: nn.Module
    head: nn.Module


def autoencoder(pixels: float = 1.0) -> Step:
    """CE(C(E(x)), y) + pixels MSE(D(E(x)), x), the mean over all values: all three parts learn together.

    Source: arXiv 2404.03340, the teacher, where `pixels` is 1 and Adam makes up for its small gradient; under the loop's SGD a
    weight of 5 does as much. Cost: one forward and backward pass of the three parts.
    """

    def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        parts = cast(Coder, model)
        code = parts.encoder(batch.x)
        logits = parts.head(code.features).float()
        label = F.cross_entropy(logits, batch.y)
        error = F.mse_loss(parts.decoder(code).float(), batch.x)
        return {"loss": label + pixels * error, "accuracy": (logits.argmax(1) == batch.y).float().mean(), "mse": error}

    return step
