"""Several backbones as one: a classifier whose gradient is the mean of its members' normalised gradients, and the release made with one step of it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from forearm.core.gradients import Classifier
from forearm.core.noise import Noise
from forearm.core.publishing import Published, family
from forearm.core.threat import Threat
from forearm.defenses.preemptive.single_step import s_fgsm
from forearm.errors import SpecError

WEIGHTS = ("even", "agreement")


@dataclass(frozen=True, slots=True)
class Ensemble:
    """The mixture of classifiers: `n c h w` -> the logarithm of the mean of their probabilities, `n k`.

        f(x) = log( 1/M sum_m softmax(f_m(x)) );   gradient  G(x) = sum_m w_m g_m / |g_m|_1,   g_m what comes back through member m

    The members' gradients differ in size by orders of magnitude, and the largest would be the only one that a sign sees: so each is divided by
    its size in every example before they are added. For the cross-entropy of the mixture, g_m is p_m(y) / sum_j p_j(y) times the gradient of
    the member's own cross-entropy, so G adds the members' own directions, whatever the others say (a member whose p_m(y) is 1e-30 of the
    others' drops out). `weights`: "even", w_m = 1/M; "agreement", w_m in proportion to max(0, the cosine between g_m and the even
    sum), and even where nobody agrees with it. Members see the same pictures: a model of another size comes as its
    `View`. An example's gradient depends on no other example. G is a direction, not the derivative of f: do not compare its size with
    anything. SpecError for no members or other weights. Cost of a gradient: one of each member.
    """

    members: tuple[Classifier, ...]
    weights: str = "even"

    def __post_init__(self) -> None:
        if not self.members:
            raise SpecError("ensemble: got no members; at least one classifier, for example Ensemble((backbone,))")
        if self.weights not in WEIGHTS:
            raise SpecError(f"ensemble: got the weights {self.weights!r}; one of {', '.join(WEIGHTS)}, for example 'even'")

    def __call__(self, x: Tensor) -> Tensor:
        seen = _Shared.apply(x, len(self.members), self.weights)  # type: ignore[no-untyped-call]
        said = [member(part) for member, part in zip(self.members, seen, strict=True)]
        logs = [torch.log_softmax(logits if logits.dtype == torch.float64 else logits.float(), 1) for logits in said]
        return torch.logsumexp(torch.stack(logs), 0) - math.log(len(logs))


def ensemble(model: Classifier, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise, survive: str = "none") -> Tensor:
    """Pictures `x` (`n c h w`, [0, 1]) moved towards the classes `y` by one step of full budget: P( x - eps d(G(x)) ).

    G is the gradient of `model`, an `Ensemble` of robust backbones that differ (of one backbone alone this is `s_fgsm`), d the steepest direction of the
    threat's norm. What several nets' gradients share, a net that none of them is shares with them: on targets that were never looked at this earns
    more than MSPD's forty gradients of one net (benchmarks/default_release.py). `survive` names a family of publishing chains (`core.publishing`):
    `model` looking through each of them is then a member of the mixture. `noise` is not used.
    Cost: a gradient of each member, times the chains. Source: this project, from S-FGSM (Moon et al., AAAI 2022). SpecError for unknown chains.
    """
    chains = family(survive)
    first = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    seen = tuple(Published(model, (chain,), first) if chain.steps else model for chain in chains)
    return s_fgsm(Ensemble(seen), x, y, threat=threat, noise=noise)


class _Shared(torch.autograd.Function):
    """One picture for every member on the way there, one gradient from all of them on the way back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, count: int, weights: str) -> tuple[Tensor, ...]:
        ctx.weights = weights
        return tuple(x.clone() for _ in range(count))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        return combine(torch.stack(gradients), ctx.weights), None, None


def combine(gradients: Tensor, weights: str) -> Tensor:
    """The members' gradients (`m n c h w`) as one (`n c h w`): each divided by its L1 size in every example, then added with its weight."""
    even = 1.0 / len(gradients)
    parts = gradients / _per_example(gradients.flatten(2).abs().sum(2), gradients)
    if weights == "even" or len(gradients) == 1:
        return even * parts.sum(0)
    flat = parts.flatten(2)
    mean = flat.mean(0)
    sizes = flat.norm(dim=2) * mean.norm(dim=1)
    agreement = ((flat * mean).sum(2) / sizes.clamp_min(torch.finfo(flat.dtype).tiny)).clamp_min(0.0)
    total = agreement.sum(0)
    shares = torch.where(total > 0, agreement / total.clamp_min(torch.finfo(flat.dtype).tiny), even)
    return (shares[:, :, None, None, None] * parts).sum(0)


def _per_example(size: Tensor, like: Tensor) -> Tensor:
    return size.clamp_min(torch.finfo(like.dtype).tiny)[:, :, None, None, None]
