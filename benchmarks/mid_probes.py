"""What the probes of MID's theory compute: angles of gradients, features, curvature, frequencies. No claim by itself."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from forearm.defenses.training.autoencoder import Coder
from forearm.defenses.training.mid import Weights, consistency
from forearm.models.autoencoder import Autoencoder

Parameters = dict[str, Tensor]
Loss = Callable[[Parameters], Tensor]


def free(net: Autoencoder) -> Autoencoder:
    """A float64 copy whose encoder can be differentiated, in eval mode."""
    twin = copy.deepcopy(net).double().eval()
    twin.encoder.requires_grad_(True)
    return twin


def parameters(net: Autoencoder) -> Parameters:
    return dict(net.encoder.named_parameters())


def objective(teacher: Coder, net: Autoencoder, x_adv: Tensor, x: Tensor, y: Tensor, weights: Weights) -> Loss:
    """The consistencies of one attack's pictures as a function of the encoder's weights: J(x', theta)."""
    with torch.no_grad():
        clean = teacher.encoder(x).features

    def loss(at: Parameters) -> Tensor:
        return consistency(teacher, functional_call(net.encoder, at, (x_adv,)), x, clean, y, weights)[0]

    return loss


def gradient(loss: Loss, at: Parameters) -> Tensor:
    """The gradient as one vector."""
    return torch.cat([part.reshape(-1) for part in torch.autograd.grad(loss(at), tuple(at.values()))])


def moved(at: Parameters, along: Tensor, by: float) -> Parameters:
    """`at` + by along."""
    parts = torch.split(along, [value.numel() for value in at.values()])
    return {name: value.detach() + by * part.reshape(value.shape) for (name, value), part in zip(at.items(), parts, strict=True)}


def alignment(gradients: list[Tensor]) -> float:
    """The mean cosine over all pairs."""
    unit = F.normalize(torch.stack(gradients), dim=1)
    every = unit @ unit.T
    m = len(gradients)
    return float((every.sum() - every.diagonal().sum()) / (m * (m - 1)))


def taylor_errors(known: Loss, unknown: Loss, at: Parameters, steps: list[float]) -> list[float]:
    """|J(x'', theta - a g') - (J(x'', theta) - a <g'', g'>)| for each a, with g' = grad J(x'), g'' = grad J(x'')."""
    inner, outer, here = gradient(known, at), gradient(unknown, at), float(unknown(at).detach())
    return [abs(float(unknown(moved(at, inner, -a)).detach()) - (here - a * float(inner @ outer))) for a in steps]


def sharpness(loss: Loss, at: Parameters, iterations: int = 20) -> float:
    """The Hessian's eigenvalue of the largest size, by power iteration from a fixed start (float64)."""
    generator = torch.Generator().manual_seed(0)
    slopes = torch.autograd.grad(loss(at), tuple(at.values()), create_graph=True)
    flat = torch.cat([part.reshape(-1) for part in slopes])
    v = F.normalize(torch.randn(flat.shape, generator=generator, dtype=flat.dtype), dim=0)
    value = 0.0
    for _ in range(iterations):
        product = torch.cat([part.reshape(-1) for part in torch.autograd.grad(flat @ v, tuple(at.values()), retain_graph=True)])
        value = float(v @ product)
        v = F.normalize(product, dim=0)
    return value


def shaken(at: Parameters, size: float, seed: int) -> Parameters:
    """Weights with Gaussian noise, for each tensor as long as `size` times the tensor."""
    generator = torch.Generator().manual_seed(seed)
    noisy = {}
    for name, value in at.items():
        noise = torch.randn(value.shape, generator=generator, dtype=value.dtype)
        noisy[name] = value.detach() + size * float(value.detach().norm() / noise.norm()) * noise
    return noisy


def radius(side: int) -> Tensor:
    """Cycles per picture at each place of `torch.fft.fft2`: `side side`."""
    along = torch.fft.fftfreq(side) * side
    return (along[:, None] ** 2 + along[None] ** 2).sqrt()


def passed(x: Tensor, cut: float, *, low: bool) -> Tensor:
    """Pictures with the frequencies up to `cut` cycles alone, or with those above it and their mean; clipped to [0, 1]."""
    far = radius(x.shape[-1])
    keep = far <= cut if low else (far > cut) | (far == 0)
    return torch.fft.ifft2(torch.fft.fft2(x) * keep).real.clamp(0.0, 1.0)


def spectrum(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    """Power of the input gradient of CE by whole cycles, each picture's adding up to 1: `n side // 2 + 1`. Zero gradients give zeros."""
    point = x.double().requires_grad_()
    (slope,) = torch.autograd.grad(F.cross_entropy(copy.deepcopy(model).double()(point), y, reduction="sum"), point)
    power = torch.fft.fft2(slope).abs().square().sum(1)
    ring = radius(x.shape[-1]).round().long().clamp(max=x.shape[-1] // 2)
    rings = torch.zeros(len(x), x.shape[-1] // 2 + 1, dtype=power.dtype).index_add_(1, ring.flatten(), power.flatten(1))
    return rings / rings.sum(1, keepdim=True).clamp(min=1e-300)


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """For each picture: the cosine of two sets of features."""
    return F.cosine_similarity(a.flatten(1), b.flatten(1))


def neighbours(features: Tensor, bank: Tensor, labels: Tensor, y: Tensor, k: int = 10) -> Tensor:
    """For each picture: the share of its k nearest clean features (by cosine) that have its label."""
    near = (F.normalize(features.flatten(1), dim=1) @ F.normalize(bank.flatten(1), dim=1).T).topk(k).indices
    return (labels[near] == y[:, None]).double().mean(1)
