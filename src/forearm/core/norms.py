"""The norms of a threat: size, projection, steepest direction and sampling of a ball, for `n c h w` tensors.

A norm is a value (`LINF`, `L2`, `L1`), not a branch: attacks and defences call its fields.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from forearm.core.noise import Noise


@dataclass(frozen=True, slots=True)
class Norm:
    """A norm over one example's pixels, and what follows from it.

    size(d): `n c h w` -> `n`, the norm of each example.
    project(d, eps): the nearest point of the eps ball, in the Euclidean sense; `eps` a number or one per example (`n`).
    steepest(g): the direction of unit size in this norm that raises <g, .> most.
    sample(like, eps, noise): a point drawn uniformly from the ball of radius eps.
    """

    name: str
    size: Callable[[Tensor], Tensor]
    project: Callable[[Tensor, float | Tensor], Tensor]
    steepest: Callable[[Tensor], Tensor]
    sample: Callable[[Tensor, float, Noise], Tensor]


def per_example(value: float | Tensor, like: Tensor) -> Tensor:
    """`value` as a tensor that broadcasts over `like` (`n c h w`): a scalar, or one number per example."""
    v = torch.as_tensor(value, dtype=like.dtype, device=like.device)
    return v if v.ndim == 0 else v.reshape(-1, *([1] * (like.ndim - 1)))


def _linf_size(d: Tensor) -> Tensor:
    return d.flatten(1).abs().amax(1)


def _linf_project(d: Tensor, eps: float | Tensor) -> Tensor:
    e = per_example(eps, d)
    return torch.maximum(torch.minimum(d, e), -e)


def _linf_sample(like: Tensor, eps: float, noise: Noise) -> Tensor:
    return noise.uniform(like, -eps, eps)


def _l2_size(d: Tensor) -> Tensor:
    size: Tensor = torch.linalg.vector_norm(d.flatten(1), dim=1)
    return size


def _l2_project(d: Tensor, eps: float | Tensor) -> Tensor:
    size = per_example(_l2_size(d), d)
    return d * (per_example(eps, d) / size.clamp_min(torch.finfo(d.dtype).tiny)).clamp_max(1.0)


def _l2_steepest(g: Tensor) -> Tensor:
    return g / per_example(_l2_size(g), g).clamp_min(torch.finfo(g.dtype).tiny)


def _l2_sample(like: Tensor, eps: float, noise: Noise) -> Tensor:
    """Uniform in the L2 ball: a Gaussian direction, radius eps * u^(1/d)."""
    direction = _l2_steepest(noise.normal(like))
    radius = noise.uniform(like[:, :1, :1, :1]) ** (1.0 / like[0].numel())
    return eps * radius * direction


def _l1_size(d: Tensor) -> Tensor:
    return d.flatten(1).abs().sum(1)


def _l1_project(d: Tensor, eps: float | Tensor) -> Tensor:
    """Euclidean projection on the L1 ball (Duchi et al., ICML 2008, figure 1): soft-threshold at theta."""
    flat = d.flatten(1)
    radius = torch.as_tensor(eps, dtype=d.dtype, device=d.device).expand(len(d))
    magnitude = flat.abs()
    sorted_, _ = magnitude.sort(dim=1, descending=True)
    excess = sorted_.cumsum(1) - radius[:, None]
    rank = torch.arange(1, flat.shape[1] + 1, device=d.device, dtype=d.dtype)
    active = (sorted_ * rank > excess).sum(1).clamp_min(1)
    theta = (excess.gather(1, active[:, None] - 1) / active[:, None]).clamp_min(0.0)
    projected = flat.sign() * (magnitude - theta).clamp_min(0.0)
    inside = magnitude.sum(1, keepdim=True) <= radius[:, None]
    return torch.where(inside, flat, projected).reshape(d.shape)


def _l1_steepest(g: Tensor) -> Tensor:
    """All weight on the coordinate with the largest gradient."""
    flat = g.flatten(1)
    at = flat.abs().argmax(1, keepdim=True)
    return torch.zeros_like(flat).scatter(1, at, flat.gather(1, at).sign()).reshape(g.shape)


def _l1_sample(like: Tensor, eps: float, noise: Noise) -> Tensor:
    """Uniform in the L1 ball: exponentials with random signs, scaled by eps * u^(1/d) over their sum."""
    magnitude = -noise.uniform(like).clamp_min(torch.finfo(like.dtype).tiny).log()
    sign = noise.uniform(like, -1.0, 1.0).sign()
    radius = noise.uniform(like[:, :1, :1, :1]) ** (1.0 / like[0].numel())
    return eps * radius * sign * magnitude / per_example(_l1_size(magnitude), like)


LINF = Norm("linf", _linf_size, _linf_project, torch.sign, _linf_sample)
L2 = Norm("l2", _l2_size, _l2_project, _l2_steepest, _l2_sample)
L1 = Norm("l1", _l1_size, _l1_project, _l1_steepest, _l1_sample)

NORMS = {norm.name: norm for norm in (LINF, L2, L1)}
