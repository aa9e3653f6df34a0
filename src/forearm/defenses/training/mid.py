"""Meta invariance defence (Zhang et al., TPAMI 2024, arXiv 2404.03340): a student encoder whose features do not move under attack.

A frozen teacher (encoder Et, decoder Dt, head C) shows what the features of the clean picture are; the student (Es, with the same C and Dt) is
to give them for attacked pictures x'. The known attacks of a pool are the meta-training set, one held-out attack the meta-test set.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.data.batches import Batch
from forearm.defenses.training.autoencoder import Code, Coder
from forearm.defenses.training.loop import Step
from forearm.defenses.training.processes import ALONE, Processes
from forearm.errors import SpecError

Parameters = dict[str, Tensor]
Objective = Callable[[Parameters], Tensor]
# The student, a batch, the key of the whole batch of which it may be a part -> `m n c h w`: the clean pictures, then a variant of them by each attack.
Members = Callable[[nn.Module, Batch, int], Tensor]

ORDERS = ("second", "first", "none", "detached")
SCALES = ("position", "element")
TOTALS = ("mean", "sum")


@dataclass(frozen=True, slots=True)
class Weights:
    """What each consistency counts: `label` (LC), `adversarial` (AC), `cyclic` (CC), `pixels` (REC), `agreement` (AG, beyond the paper)."""

    label: float = 1.0
    adversarial: float = 1.0
    cyclic: float = 1.0
    pixels: float = 0.0
    agreement: float = 0.0


@dataclass(frozen=True, slots=True)
class Meta:
    """How the objective is put together.

    order: of the meta-gradient, see `meta_objective`; rate: the inner step alpha; scale: of the divergence, see `divergence`; total: `mean` or
    `sum` over the known members; train, test: the weights (published: 1, 1.5, 0.8 and 1, 1, 1, pixels 0); seed: of the held-out draw.
    """

    order: str = "second"
    rate: float = 1e-3
    scale: str = "position"
    total: str = "mean"
    train: Weights = Weights(1.0, 1.5, 0.8)
    test: Weights = Weights()
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, allowed in (("order", self.order, ORDERS), ("scale", self.scale, SCALES), ("total", self.total, TOTALS)):
            if value not in allowed:
                raise SpecError(f"mid: got {name}={value!r}; one of {', '.join(allowed)}, for example {allowed[0]!r}")


def divergence(reference: Tensor, features: Tensor, scale: str = "position") -> Tensor:
    """KL( q(reference) || q(features) ), q the softmax over channels at each position: features `n d ...` twice -> one number, 0 or more.

        sum_d q_ref (log q_ref - log q),   then the mean over pictures and positions

    Both sides enter as features, never as logarithms, so a target cannot be mistaken for its own logarithm. `scale="element"`: the mean over channels
    too, as the authors' script has it, `d` times weaker. With reference Et(x): for features Es(x') the adversarial consistency (AC), for
    Et(Dt(Es(x'))) the cyclic one (CC). Source: arXiv 2404.03340, the feature- and pixel-level consistencies.
    """
    known, given = _log_q(reference), _log_q(features)
    each = known.exp() * (known - given)
    return each.mean() if scale == "element" else each.sum(1).mean()


def label_consistency(logits: Tensor, y: Tensor) -> Tensor:
    """LC = CE(C(Es(x')), y): the mean over `n k` logits and `n` true labels."""
    return F.cross_entropy(_wide(logits), y)


def pixel_distance(made: Tensor, x: Tensor) -> Tensor:
    """REC = mean |Dt(Es(x')) - x|: what the decoder makes of the student's features, against the clean pictures."""
    return (_wide(made) - x).abs().mean()


def agreement(logits: Tensor, n: int) -> Tensor:
    """AG = KL( p(C(Es(x))) || p(C(Es(x'))) ), p = softmax: logits `m n k` of which the first `n` are of the clean pictures -> one number, 0 or more.

    The mean over all variants; the gradient reaches both sides. Beyond the paper: the term of TRADES (arXiv 1901.08573), for a student whose answers
    are to be the same on its own clean and attacked pictures, whatever the teacher says of them.
    """
    given = _wide(logits).log_softmax(1)
    clean = given[:n].repeat(len(logits) // n, 1)
    return (clean.exp() * (clean - given)).sum(1).mean()


def consistency(
    teacher: Coder, code: Code, x: Tensor, clean: Tensor, y: Tensor, weights: Weights, *, scale: str = "position"
) -> tuple[Tensor, Tensor]:
    """label LC + adversarial AC + cyclic CC + pixels REC + agreement AG of a student's codes, and the logits (`m n k`).

    `code`: Es(x') of `m n` pictures, member by member; `x`, `clean`, `y`: the `n` clean pictures, their features Et(x) and true labels, each of
    which serves its `m` variants. The result is the mean over members. Gradients reach the code through the frozen head, decoder and teacher's
    encoder. Cost: a pass of the head; of the decoder where CC or REC count, of the encoder where CC does.
    """
    features = code.features
    copies = len(features) // len(x)
    clean = clean.repeat(copies, *[1] * (clean.ndim - 1))
    logits = teacher.head(features)
    total = weights.label * label_consistency(logits, y.repeat(copies))
    if weights.agreement:
        total = total + weights.agreement * agreement(logits, len(x))
    if weights.adversarial:
        total = total + weights.adversarial * divergence(clean, features, scale)
    if weights.cyclic or weights.pixels:
        made = teacher.decoder(code)
        if weights.cyclic:
            total = total + weights.cyclic * divergence(clean, teacher.encoder(made).features, scale)
        if weights.pixels:
            total = total + weights.pixels * pixel_distance(made, x.repeat(copies, 1, 1, 1))
    return total, logits


def meta_objective(
    train: Objective, test: Objective, parameters: Parameters, *, rate: float, order: str = "second", among: Processes = ALONE
) -> tuple[Tensor, Tensor]:
    """What one step lowers, and L_train alone.

        L_train(theta) + L_test(theta'),   theta' = theta - rate grad L_train(theta)

    `order`: "second" differentiates through the inner gradient; "first" takes it as a constant (one Hessian-vector product less); "none" has
    L_test(theta), plain training on the same pictures; "detached" leaves L_test out, which is what remains of the authors' script, whose fast weights
    are leaves that pass no gradient on. To first order in the rate the objective is L_train + L_test - rate <grad L_train, grad L_test>, so it aligns
    the gradients of known and unknown attacks. `among`: the processes that have a part of the batch each; the inner gradient is the mean of all theirs,
    so that the mean of their gradients of the result is that of the whole batch. Cost: the two losses and a backward pass of the first; the caller's
    backward pass goes through both.
    """
    known = train(parameters)
    if order == "detached":
        return known, known
    if order == "none":
        return known + test(parameters), known
    inner = torch.autograd.grad(known, tuple(parameters.values()), create_graph=order == "second", retain_graph=True)
    moved = {name: value - rate * slope for (name, value), slope in zip(parameters.items(), among.mean(inner), strict=True)}
    return known + test(moved), known


def mid(teacher: Coder, members: Members, meta: Meta = Meta(), among: Processes = ALONE) -> Step:
    """A training step of the student's encoder, the only part that learns.

    Of the attacks in `members` one is drawn as the unknown, afresh for each batch and the same in a resumed run; the clean pictures are always
    known. `teacher` is frozen and in eval mode (batch norm included); the student's batch norm normalises by the known members together, and its running
    statistics never see theta'. The student's own copies of head and decoder are not used and do not change. `among`: the processes that train
    together; each makes and sees its part of the batch (batch norm normalises by that part, as it does in DDP). Cost with m members: `consistency`
    of m variants, forward and backward, and for the second order about once more the backward pass of the known ones.
    """

    def step(model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        key = batch_key(batch)
        batch = among.part(batch)
        pool = members(model, batch, key)
        unknown = held_out(key, len(pool) - 1, meta.seed)
        known = torch.cat([pool[:unknown], pool[unknown + 1 :]])
        encoder = cast(Coder, model).encoder
        seen: dict[str, Tensor] = {}
        with torch.no_grad():
            clean = teacher.encoder(batch.x).features

        def train(parameters: Parameters) -> Tensor:
            code: Code = functional_call(encoder, parameters, (known.flatten(0, 1),))
            loss, seen["known"] = consistency(teacher, code, batch.x, clean, batch.y, meta.train, scale=meta.scale)
            return loss * len(known) if meta.total == "sum" else loss

        def test(parameters: Parameters) -> Tensor:
            kept = {name: value.clone() for name, value in encoder.named_buffers()}
            code: Code = functional_call(encoder, {**parameters, **kept}, (pool[unknown],))
            loss, seen["unknown"] = consistency(teacher, code, batch.x, clean, batch.y, meta.test, scale=meta.scale)
            return loss

        total, first = meta_objective(train, test, dict(encoder.named_parameters()), rate=meta.rate, order=meta.order, among=among)
        return {"loss": total, "known": first.detach()} | _accuracies(seen, batch.y)

    return step


def held_out(key: int, attacks: int, seed: int) -> int:
    """Which member is unknown to the batch of that key: 1 to `attacks`, all alike likely; a function of (seed, the batch's ids) alone."""
    noise = Noise(seed, torch.tensor([key])).stream("held out")
    return 1 + int(noise.integers(torch.zeros(1), attacks))


def batch_key(batch: Batch) -> int:
    """63 bits that name a batch: a hash of its ids in their order."""
    digest = hashlib.blake2b(batch.ids.cpu().numpy().astype("<i8").tobytes(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def against_student(attacks: Sequence[tuple[Callable[..., Tensor], Threat]], *, aim: int = 0, seed: int = 0) -> Members:
    """Members that attack the student as it is at this step, in eval mode: beyond the paper, whose pool is made on a fixed target once.

    Untargeted attacks leave the true label, targeted ones go to the class `aim`. Random starts are new for every batch and the same in a resumed run.
    Cost: that of the attacks, in each step.
    """

    def members(model: nn.Module, batch: Batch, key: int) -> Tensor:
        noise = Noise(seed, batch.ids).stream(key)
        was = model.training
        model.eval()
        made = [batch.x]
        for number, (attack, threat) in enumerate(attacks):
            y = torch.full_like(batch.y, aim) if threat.targeted else batch.y
            made.append(attack(model, batch.x, y, threat=threat, noise=noise.stream(number)).detach())
        model.train(was)
        return torch.stack(made)

    return members


def refreshed(members: Members, every: int) -> Members:
    """`members` of the student as it was at the last `every`-th step, not as it is: with the steps of an epoch, a pool that is new in each epoch.

    Steps are counted from the call on, so a run that resumes at the beginning of an epoch makes the same pictures. Memory: a copy of the student.
    """
    calls, held = count(), list[nn.Module]()

    def made(model: nn.Module, batch: Batch, key: int) -> Tensor:
        if next(calls) % every == 0:
            held[:] = [copy.deepcopy(model)]
        return members(held[0], batch, key)

    return made


def _accuracies(seen: Mapping[str, Tensor], y: Tensor) -> dict[str, Tensor]:
    """Shares of right labels among the known and the unknown variants, where both were looked at."""
    return {f"{name} accuracy": (z.argmax(1).reshape(-1, len(y)) == y).float().mean() for name, z in seen.items()}


def _log_q(features: Tensor) -> Tensor:
    return F.log_softmax(_wide(features), 1)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
