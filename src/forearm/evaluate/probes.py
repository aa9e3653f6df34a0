"""What the gradients of a model are worth: probes that ask one thing each, on pictures that it classifies correctly.

No probe knows a defence. Each gives one number a picture; what the numbers say is decided in `evaluate.masking`. A
model that draws randomness draws the same in all passes of one probe, save the one that asks how much the draws matter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from forearm.attacks.gradient import VANISHED
from forearm.core.gradients import Classifier
from forearm.core.losses import Loss, cross_entropy, margin
from forearm.core.noise import Noise
from forearm.core.precision import full_precision


@contextmanager
def drawn(noise: Noise, name: str, device: torch.device) -> Iterator[None]:
    """Inside, torch's generators (the CPU's and the device's) start from a hash of (`noise.seed`, `name`); afterwards they
    are as they were.
    """
    seed = noise.stream(name).seed
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


class Asked(nn.Module):
    """`model`, counting what it is asked; a graph always leads from its logits to the picture.

    Where the model itself cuts the graph (a detached input), autograd would raise; here the gradient is zero, which is
    what an attacker gets. The logits are the model's own to the bit, in full precision. `passes`: forward and backward
    passes so far, of one picture each.
    """

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model
        self.passes = 0

    def forward(self, x: Tensor) -> Tensor:
        """`n c h w` -> `n k`. Cost: one pass of the model."""
        graph = torch.is_grad_enabled() and x.requires_grad
        self.passes += len(x) * (2 if graph else 1)
        with full_precision(x.device):
            logits: Tensor = self.model(x)
        return logits + 0.0 * x.flatten(1).sum(1, keepdim=True) if graph else logits


def raw_gradient(model: Asked, x: Tensor, y: Tensor, loss: Loss = cross_entropy) -> Tensor:
    """The gradient of `loss` exactly as autograd gives it (`n c h w`), zeros, infinities and NaN included.

    Attacks replace what has vanished or is not finite (`attacks.gradient`), and so must not be asked here.
    Cost: one forward and backward pass.
    """
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(model(x), y).sum(), x)
    return gradient


def vanished(model: Asked, x: Tensor, y: Tensor, *, noise: Noise) -> Tensor:
    """Whose cross-entropy has a gradient of zero (`n`, bool): no entry above 1e-18, below which squares are zero in
    float32.

    An over-confident model (probabilities that round to 1), a rounded or a detached input. Cost: one forward and
    backward pass. Source: Carlini and Wagner, arXiv 1608.04644, section 8 (defensive distillation); Athalye et al.,
    arXiv 1802.00420, section 3 (shattered and vanishing gradients); Pintor et al., arXiv 2106.09947, indicator F1.
    """
    with drawn(noise, "gradient", x.device):
        gradient = raw_gradient(model, x, y)
    return gradient.nan_to_num(1.0).flatten(1).abs().amax(1) <= VANISHED


def infinite(model: Asked, x: Tensor, y: Tensor, *, noise: Noise) -> Tensor:
    """Whose cross-entropy or margin has a gradient with an entry that is NaN or infinite (`n`, bool).

    Numerical instability, made or met. Cost: two forward and backward passes. Source: arXiv 1802.00420, section 3.
    """
    with drawn(noise, "gradient", x.device):
        steep = raw_gradient(model, x, y)
    with drawn(noise, "gradient", x.device):
        away = raw_gradient(model, x, y, margin)
    return ~(steep.isfinite() & away.isfinite()).flatten(1).all(1)


def slopes(model: Asked, x: Tensor, y: Tensor, *, noise: Noise, directions: int, reach: float) -> tuple[Tensor, Tensor]:
    """What the gradient g of the margin m says of finite differences: their cosine (`n`) and its scale (`n`).

        s_i = (m(x + reach v_i) - m(x - reach v_i)) / (2 reach),   v_i in {-1, +1}^d, i = 1 .. directions
        cosine = <s, p> / (|s| |p|),   p_i = <g, v_i>;      scale = |g| / root mean square of s

    Both are 1 for a smooth model: E s_i^2 = |g|^2. `reach` is in pixel units; x is first moved into [reach, 1 - reach],
    so that no probe leaves the range of pictures. The cosine is 0 where either side is 0 or not finite; the scale is 0
    where g is, and at most 1e30. Cost: one forward and backward pass, 2 `directions` forward passes. Source: Carlini et
    al., arXiv 1902.06705, section 5 (numerical against analytic gradients); Uesato et al., arXiv 1802.05666.
    """
    x = x.clamp(reach, 1.0 - reach)
    with drawn(noise, "gradient", x.device):
        gradient = raw_gradient(model, x, y, margin).double()
    source, measured, predicted = noise.stream("slopes"), [], []
    for _ in range(directions):
        v = source.integers(x, 2).to(x.dtype) * 2.0 - 1.0
        ends = []
        for end in (x + reach * v, x - reach * v):
            with torch.no_grad(), drawn(noise, "gradient", x.device):
                ends.append(margin(model(end), y).double())
        measured.append((ends[0] - ends[1]) / (2.0 * reach))
        predicted.append((gradient * v).flatten(1).sum(1))
    s, p = torch.stack(measured, 1), torch.stack(predicted, 1)
    size = s.square().mean(1).sqrt()
    cosine = (s * p).sum(1) / (s.square().sum(1).sqrt() * p.square().sum(1).sqrt())
    scale = torch.where(gradient.flatten(1).any(1), gradient.flatten(1).norm(dim=1) / size, 0.0)
    return cosine.nan_to_num(0.0, 0.0, 0.0), scale.nan_to_num(1e30, 1e30).clamp_max(1e30)


def flips(model: Asked, x: Tensor, y: Tensor, *, noise: Noise, shift: float) -> Tensor:
    """The share of the entries of the margin's gradient that change their sign when the pixels move by up to `shift` (`n`).

    Each pixel moves by its own uniform number (one step for all would be one shift of a wave's phase). Entries that are
    zero at either end do not count, and the share is 0 where all are. A network of rectifiers changes a few in a
    thousand, a gradient that hashes the pixels' last bits about half. Cost: two forward and backward passes. Source:
    shattered gradients, arXiv 1802.00420, section 3.
    """
    x = x.clamp(shift, 1.0 - shift)
    signs = []
    for point in (x, x + noise.stream("flips").uniform(x, -shift, shift)):
        with drawn(noise, "gradient", x.device):
            signs.append(raw_gradient(model, point, y, margin).nan_to_num(0.0).sign().flatten(1))
    product = signs[0] * signs[1]
    return (product < 0).sum(1) / (product != 0).sum(1).clamp_min(1)


def random(model: Asked, x: Tensor, *, noise: Noise) -> bool:
    """Whether `model` answers the same pictures otherwise under another draw. Cost: two forward passes."""
    answers = []
    for name in ("first draw", "second draw"):
        with torch.no_grad(), drawn(noise, name, x.device):
            answers.append(model(x))
    return not torch.equal(*answers)


def agreement(model: Asked, x: Tensor, y: Tensor, *, noise: Noise, draws: int) -> Tensor:
    """The mean cosine between the margin's gradients under `draws` different draws of torch's generator (`n`).

    1 for a model that draws nothing. Where it is r, one gradient has about the cosine sqrt(r) to the expected gradient
    that an attacker wants. Gradients that are zero or not finite say nothing here: 1 where all are. Cost: `draws`
    forward and backward passes. Source: stochastic gradients, arXiv 1802.00420, section 4 (expectation over
    transformation).
    """
    units = []
    for k in range(draws):
        with drawn(noise, f"draw {k}", x.device):
            gradient = raw_gradient(model, x, y, margin).double().nan_to_num(0.0, 0.0, 0.0).flatten(1)
        units.append(gradient / gradient.norm(dim=1, keepdim=True).clamp_min(torch.finfo(torch.float64).tiny))
    every = torch.stack(units)
    own = every.square().sum((0, 2))
    mean = (every.sum(0).square().sum(1) - own) / (draws * (draws - 1))
    return torch.where(own > 0.0, mean, 1.0)


def right(model: Asked, x: Tensor, y: Tensor, *, noise: Noise, draws: int) -> Tensor:
    """Which pictures the mean logits of `draws` draws get right (`n`, bool): margin < 0, so a tie or a NaN is wrong.

    The draws are the judge's own: what an attack has drawn does not decide on it. Cost: `draws` forward passes.
    """
    answers = []
    for k in range(draws):
        with torch.no_grad(), drawn(noise, f"judge {k}", x.device):
            answers.append(model(x).float())
    return margin(torch.stack(answers).mean(0), y) < 0.0
