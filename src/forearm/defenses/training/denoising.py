"""Training a purifier: an autoencoder that makes pictures again without the noise that was put on them."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.core.noise import Noise
from forearm.data.batches import Batch
from forearm.defenses.training.autoencoder import Coder
from forearm.defenses.training.loop import Step
from forearm.errors import SpecError


def denoising(level: float = 0.1, seed: int = 0) -> Step:
    """MSE(D(E(x~)), x) + CE(C(E(x~)), y), x~ = clip(x + s n), n ~ N(0, 1) a value, s ~ U[0, level] a picture.

    The MSE is the mean over all values. The head learns from the features as they are, and they do not learn from it. With s down to 0, clean pictures are
    among those that have to stay what they are; MagNet has one s (Meng and Chen, CCS 2017, section 4.3: 0.025 on CIFAR-10, 0.1 on MNIST). The noise
    depends on (seed, ids of the batch, in their order) alone. SpecError for a level outside of (0, 1]. Cost: one forward and backward pass.
    """
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0.0 < level <= 1.0:
        raise SpecError(f"denoising: got level={level!r}; above 0 and at most 1, for example 0.1")

    def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        parts = cast(Coder, model)
        code = parts.encoder(noisy(batch, level, seed))
        error = F.mse_loss(parts.decoder(code).float(), batch.x)
        logits = parts.head(code.features.detach()).float()
        return {"loss": error + F.cross_entropy(logits, batch.y), "mse": error, "accuracy": (logits.argmax(1) == batch.y).float().mean()}

    return step


def noisy(batch: Batch, level: float, seed: int) -> Tensor:
    """clip(x + s n) of `denoising`, `n c h w`: no other epoch has the same noise, as none has the same order."""
    noise = Noise(seed, batch.ids).stream(f"{batch.ids.tolist()}")
    one = batch.x[:, :1, :1, :1]
    spread = level * noise.uniform(one, 0.0, 1.0)
    return torch.clamp(batch.x + spread * noise.normal(batch.x), 0.0, 1.0)
