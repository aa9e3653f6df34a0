"""The recipe of the instant release: a network learns, in one pass, the change that MSPD finds with forty gradients of a backbone."""

from __future__ import annotations

from typing import Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.core.gradients import Classifier, input_gradient
from forearm.core.view import resize
from forearm.data.batches import Batch
from forearm.defenses.training.loop import Step
from forearm.defenses.training.mid import batch_key
from forearm.errors import SpecError

Features = tuple[Tensor, Tensor, Tensor]


class Writer(Protocol):
    """A network that judges a picture and writes a class into it: `models.instant.Instant`."""

    def encode(self, x: Tensor) -> Features: ...

    def judge(self, features: Features) -> Tensor: ...

    def decode(self, features: Features, y: Tensor, eps: Tensor) -> Tensor: ...


def instant(
    backbone: Classifier,
    *,
    low: float = 2.0 / 255.0,
    high: float = 12.0 / 255.0,
    spread: float = 1.0,
    coarse: float = 0.75,
    own: float = 0.2,
    smoothing: float = 0.0,
) -> Step:
    """The step that trains a `Writer` g against a frozen `backbone` f.

        u = g(x, y, eps) in [-1, 1],   eps ~ U[low, high],   z = clip01(x + eps u + spread eps U[-1, 1])
        loss = < G / |G|_1, u > + own CE(g's own class, y),   G = grad_z CE(f(look(z)), y), held constant

    The first term is the slope of the backbone's loss along u, its size taken out in every picture: it lies in [-1, 1], and at -1 every value of the
    picture moves by eps against its gradient's sign. At u = 0 that is the target of S-FGSM; from there G is taken at the release itself, with the
    noise of MCGS, one draw a step, so that what is learnt is MCGS's mean over noise. `look` is drawn for each batch as well: the picture as it is or
    mirrored, and as it is or through `coarse` times its size (1 leaves that out), the looks of `preemptive.looks`: what one net's gradient has that
    others' have not is fine structure of its own grid. No release of MSPD is made (forty gradients a picture). `own` weighs the network's own
    classification. Logged: the slope, how sure the backbone is of y on the release with its noise, the network's own accuracy.
    Cost: a pass of the network and its backward pass, and one gradient of the backbone. SpecError for budgets or shares out of range.
    Source: this project, after Naseer et al. and Poursaeed et al. (generators of perturbations), with the direction turned round.
    """
    if not 0.0 < low <= high or not 0.0 < coarse <= 1.0:
        raise SpecError(
            f"instant: got low={low:g}, high={high:g}, coarse={coarse:g}; 0 < low <= high and a share up to 1, for example 0.75"
        )

    def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        writer = cast(Writer, model)
        generator = torch.Generator(batch.x.device).manual_seed(batch_key(batch))
        x, y = batch.x, batch.y
        eps = torch.empty(len(x), device=x.device).uniform_(low, high, generator=generator)
        noise = torch.empty_like(x).uniform_(-spread, spread, generator=generator)
        mirror, small = (torch.rand(2, generator=generator, device=x.device) < 0.5).tolist()
        features = writer.encode(x.contiguous(memory_format=torch.channels_last))
        said = writer.judge(features).float()
        change = writer.decode(features, y, eps)
        z = (x + eps[:, None, None, None] * (change.detach() + noise)).clamp(0.0, 1.0)
        gradient, logits = input_gradient(_look(backbone, mirror, coarse if small else 1.0), z, y)
        slope = (_unit(gradient) * change).sum((1, 2, 3)).mean()
        loss = slope + own * F.cross_entropy(said, y, label_smoothing=smoothing)
        sure = logits.softmax(1).gather(1, y[:, None]).mean()
        return {"loss": loss, "slope": slope, "sure": sure, "accuracy": (said.argmax(1) == y).float().mean()}

    return step


def _look(backbone: Classifier, mirror: bool, coarse: float) -> Classifier:
    """The backbone looking at the picture mirrored, coarser, both or as it is."""

    def look(z: Tensor) -> Tensor:
        seen = z.flip(3) if mirror else z
        if coarse < 1.0:
            height, width = seen.shape[2], seen.shape[3]
            small = max(1, round(coarse * height)), max(1, round(coarse * width))
            seen = resize(resize(seen, small), (height, width))
        return backbone(seen)

    return look


def _unit(gradient: Tensor) -> Tensor:
    """Each example's gradient divided by its L1 size; zeros stay zeros."""
    return gradient / gradient.flatten(1).abs().sum(1).clamp_min(torch.finfo(gradient.dtype).tiny)[:, None, None, None]
