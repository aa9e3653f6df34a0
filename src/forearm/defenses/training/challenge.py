"""The training of the gradient concealment challenge (Pei et al., arXiv 2205.10617, 2022): MixUp, CutMix, FGSM regularisation, random resize-and-pad."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.data.batches import Batch
from forearm.defenses.inference.conceal import conceal
from forearm.defenses.inference.resize_pad import Placing, placings
from forearm.defenses.training.loop import Step
from forearm.errors import SpecError

BUDGETS = tuple(0.001 + 0.079 * i / 19 for i in range(20))  # radii in pixel values of [0, 1]; one is drawn for each batch
THROUGH = ("bare", "gcm")


@dataclass(frozen=True, slots=True)
class Ingredients:
    """What the loss is made of; a weight of 0 leaves an ingredient out, and its passes.

    through: the gradient of FGSM is that of the bare model ("bare"), or is taken through the concealment module ("gcm"), where its sign is a hash of
    the pixel. least: the smallest side over the whole of random resize-and-pad, in (0, 1), or None for pictures as they are.
    """

    mixup: float = 1.0
    cutmix: float = 1.0
    fgsm: float = 1.0
    through: str = "bare"
    least: float | None = None

    def __post_init__(self) -> None:
        if (
            min(self.mixup, self.cutmix, self.fgsm) < 0.0
            or self.through not in THROUGH
            or not (self.least is None or 0.0 < self.least < 1.0)
        ):
            raise SpecError(
                f"challenge: got mixup={self.mixup!r}, cutmix={self.cutmix!r}, fgsm={self.fgsm!r}, through={self.through!r}, least={self.least!r}; "
                "weights of 0 or more, 'bare' or 'gcm', None or a ratio below 1, for example mixup=1, through='bare', least=26/32"
            )


def challenge(ingredients: Ingredients = Ingredients(), seed: int = 0) -> Step:
    """CE(f(x), y) + a MixUp CE + b CutMix CE + c FGSM CE, one step of the challenge's training.

        MixUp CE   l CE(f(m), y) + (1 - l) CE(f(m), y'),   m = l x + (1 - l) x',   l ~ U[0, 1]
        CutMix CE  the same for x with a rectangle of x',  l the share of x that is left
        FGSM CE    the mean of CE(f(x_k), y) over the four x_k = clip(x +- eps sign(g)),   g = grad CE(f(x), y) or grad CE(f(x), t),
                   t ~ U{1..k},   eps from `BUDGETS`

    x' is a permutation of the batch. With `least`, f puts every batch it is given at one random place (`resize_pad`), also for the gradient. f is the bare
    network, not the concealed one: GCM changes its pictures by 1.5e-8, and belongs in front of the trained network at test time. What is not published is
    our reading: weights of 1 (the authors' earlier scripts have 0.02 for each FGSM part), one eps for the four; the gradient is taken in eval mode,
    as in those scripts. The four are one pass, so batch norm, which ConvNeXt has none of, would see them together.

    Every draw depends on (seed, ids of the batch, in their order) alone: those of an ingredient do not depend on which others there are, dropout
    and stochastic depth of the network included, and torch's generators are left as they were. SpecError for other ingredients (`Ingredients`).
    Cost: a forward and backward pass for each of CE, MixUp and CutMix, four for FGSM, and one forward and two backward ones for its gradients.
    """

    def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        noise = Noise(_key(batch, seed), torch.zeros(1, dtype=torch.int64))
        see = _placed(model, ingredients.least, noise.stream("place"))
        x, y = batch.x, batch.y
        with _seeded(noise.seed, x.device):
            logits = see(x).float()
        values = {"loss": F.cross_entropy(logits, y), "accuracy": (logits.argmax(1) == y).float().mean()}
        for name, weight, mix in (("mixup", ingredients.mixup, mixup), ("cutmix", ingredients.cutmix, cutmix)):
            if weight > 0.0:
                mixed, other, share = mix(x, y, noise.stream(name))
                with _seeded(noise.stream(name).seed, x.device):
                    values[name] = mixed_loss(see(mixed).float(), y, other, share)
                values["loss"] = values["loss"] + weight * values[name]
        if ingredients.fgsm > 0.0:
            x_adv = both_signs(model, x, y, noise.stream("fgsm"), see=see, through=ingredients.through)
            with _seeded(noise.stream("fgsm").seed, x.device):
                values["fgsm"] = F.cross_entropy(see(x_adv.flatten(0, 1)).float(), y.repeat(len(x_adv)))
            values["loss"] = values["loss"] + ingredients.fgsm * values["fgsm"]
        return values

    return step


def mixup(x: Tensor, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor, float]:
    """l x + (1 - l) x' with a permutation x' of `x`, the labels of x', and l ~ U[0, 1], one for the batch (Zhang et al., ICLR 2018, alpha = 1)."""
    share, order = _share(noise), _order(x, noise)
    return share * x + (1.0 - share) * x[order], y[order], share


def cutmix(x: Tensor, y: Tensor, noise: Noise) -> tuple[Tensor, Tensor, float]:
    """`x` with a rectangle of x', the labels of x', and the share of x that is left (Yun et al., ICCV 2019, section 3.1, alpha = 1).

    Its edges are sqrt(1 - l) of the picture's, l ~ U[0, 1], its centre is uniform, and what lies outside is cut off. One rectangle for the batch.
    """
    share, order = _share(noise), _order(x, noise)
    height, width = x.shape[2], x.shape[3]
    (top, bottom), (left, right) = (_span(size, share, noise) for size in (height, width))
    mixed = x.clone()
    mixed[:, :, top:bottom, left:right] = x[order, :, top:bottom, left:right]
    return mixed, y[order], 1.0 - (bottom - top) * (right - left) / (height * width)


def mixed_loss(logits: Tensor, y: Tensor, other: Tensor, share: float) -> Tensor:
    """share CE(logits, y) + (1 - share) CE(logits, other), the mean over the batch."""
    return share * F.cross_entropy(logits, y) + (1.0 - share) * F.cross_entropy(logits, other)


def both_signs(model: nn.Module, x: Tensor, y: Tensor, noise: Noise, *, see: Classifier | None = None, through: str = "bare") -> Tensor:
    """Four FGSM pictures of each (`4 n c h w`): clip(x + eps s), clip(x - eps s) for s the sign of the gradient of CE to the label, then to a random class.

    The gradient is that of `see` (default: `model`), with `model` in eval mode; `through` "gcm" puts the concealment module before it, and s is a
    sign that depends on the pixel's bits and hardly on the model: training then sees noise, not an attack. Cost: one forward and two backward passes.
    """
    source = see or model
    if through == "gcm":
        source = conceal(_Seen(source))
    eps = BUDGETS[int(noise.integers(torch.empty(1), len(BUDGETS)))]
    point = x.detach().requires_grad_()
    with _evaluating(model), torch.enable_grad():
        logits = source(point).float()
        target = noise.stream("target").integers(torch.empty(1, len(x)), logits.shape[1])[0].to(y.device)
        (away,) = torch.autograd.grad(F.cross_entropy(logits, y), point, retain_graph=True)
        (towards,) = torch.autograd.grad(F.cross_entropy(logits, target), point)
    steps = [sign * eps * gradient.nan_to_num(0.0).sign() for gradient in (away, towards) for sign in (1.0, -1.0)]
    return torch.stack([(x + step).clamp(0.0, 1.0) for step in steps])


class _Seen(nn.Module):
    """A classifier as a module, so that a defence can stand before it."""

    def __init__(self, see: Classifier) -> None:
        super().__init__()
        self.see = see

    def forward(self, x: Tensor) -> Tensor:
        return self.see(x)


def _placed(model: nn.Module, least: float | None, noise: Noise) -> Classifier:
    """`model` on pictures that each pass puts at one place, drawn with the chances of `placings`; without `least`, the model."""
    if least is None:
        return model

    def see(x: Tensor) -> Tensor:
        logits: Tensor = model(_drawn(placings(x.shape[2], x.shape[3], least), noise)(x))
        return logits

    return see


def _drawn(choices: list[Placing], noise: Noise) -> Placing:
    """One of the configurations, by their chances."""
    left = float(noise.uniform(torch.empty(1, dtype=torch.float64)))
    for placing in choices:
        left -= placing.chance
        if left < 0.0:
            return placing
    return choices[-1]


def _share(noise: Noise) -> float:
    return float(noise.uniform(torch.empty(1, dtype=torch.float64)))


def _order(x: Tensor, noise: Noise) -> Tensor:
    """A permutation of the batch."""
    drawn = noise.uniform(torch.empty(1, len(x), dtype=torch.float64))
    return drawn[0].argsort(stable=True).to(x.device)


def _span(size: int, share: float, noise: Noise) -> tuple[int, int]:
    """The rectangle's first pixel and the one behind its last, along an edge of `size`."""
    half = int(size * (1.0 - share) ** 0.5) // 2
    centre = int(noise.integers(torch.empty(1), size))
    return max(centre - half, 0), min(centre + half, size)


def _key(batch: Batch, seed: int) -> int:
    """A number that depends on the seed and on the batch's ids in their order, which no other epoch has again."""
    text = f"{seed}/{batch.ids.tolist()}".encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "little", signed=True)


@contextmanager
def _seeded(key: int, device: torch.device) -> Iterator[None]:
    """torch's generators begin at `key`, for modules that draw from them; afterwards they are as they were."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(key)
        yield


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode, then the mode of before."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)
