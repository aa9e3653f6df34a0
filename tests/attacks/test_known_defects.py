"""Defects that other attack libraries have had, over the whole table. Each check has a mutant with that defect, which must fail it.

Elsewhere, and not repeated here: `tests/laws/` holds every attack to its ball, its batch (alone or among others: the same), its own randomness, and to
returning its best point and not the picture; `tests/attacks/test_gradient.py` has the direction taken where a gradient is exactly zero.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from forearm.attacks.pgd import pgd
from forearm.attacks.table import ATTACKS, TRAITS, Attack
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.registry import accepts, bind, resolve
from tests.laws.test_attack_laws import CASES, Linear, attack_named, pictures, small_net, threat_of, won

every = pytest.mark.parametrize(("name", "norm"), CASES)
N = 12


class Recorder:
    """A classifier that keeps every picture it was asked about."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.asked = model, list[Tensor]()

    def __call__(self, x: Tensor) -> Tensor:
        self.asked.append(x.detach().clone())
        logits: Tensor = self.model(x)
        return logits


# what comes back was scored


def returns_what_it_scored(attack: Attack, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> None:
    """Every picture that comes back was shown to the model: no iterate is returned unseen."""
    recorder = Recorder(model)
    x_adv = attack(recorder, x, y, threat=threat, noise=Noise.of(len(x)))
    seen = torch.cat(recorder.asked).flatten(1)
    nearest = torch.stack([(seen - one).abs().amax(1).amin() for one in x_adv.flatten(1)])
    assert (nearest < 1e-12).all(), nearest


def returns_the_last_unseen(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    x_adv = pgd(model, x, y, threat=threat, noise=noise, steps=4)
    return threat.project(x_adv + 0.3 * threat.eps * threat.norm.steepest(x_adv - x), x)


@every
def test_what_comes_back_was_scored(name: str, norm: str) -> None:
    net, x = small_net(), pictures()
    returns_what_it_scored(attack_named(name), net, x, won_by(net, x), threat_of(norm))


def test_a_point_returned_unseen_is_told() -> None:
    net, x = small_net(), pictures()
    with pytest.raises(AssertionError):
        returns_what_it_scored(returns_the_last_unseen, net, x, won_by(net, x), threat_of("linf"))


# the last step counts


def one_step_counts(attack: Attack, norm: str) -> None:
    """A single step on a linear model brings every example forward, which it cannot if the point behind it is dropped."""
    x = 0.3 + 0.4 * pictures()
    model = Linear(x)
    y = won_by(model, x)
    threat = threat_of(norm)
    x_adv = attack(model, x, y, threat=threat, noise=Noise.of(len(x)))
    with torch.no_grad():
        gain = threat.margin(model(x_adv), y) - threat.margin(model(x), y)
    assert (gain > 1e-9).all(), gain


def drops_its_last_step(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise, steps: int = 1) -> Tensor:
    """Scores each point when it takes the gradient there, so that the end of the last step is never seen."""
    x_adv = best = threat.sample(x, noise)
    for _ in range(steps):
        with torch.enable_grad():
            z = x_adv.detach().requires_grad_()
            logits = model(z)
            (gradient,) = torch.autograd.grad(F.cross_entropy(logits, y, reduction="sum"), z)
        best, x_adv = x_adv, threat.project(x_adv + threat.eps * threat.norm.steepest(gradient), x)
    return best


STEPPED = [
    (name, norm)
    for name, norm in CASES
    if accepts(resolve(ATTACKS, name), "steps") and (TRAITS[name].kind in ("gradient", "minimal") or name == "spsa")
]


@pytest.mark.parametrize(("name", "norm"), STEPPED)
def test_the_last_step_counts(name: str, norm: str) -> None:
    one_step_counts(bind(ATTACKS, "autoattack(steps=1, queries=2)" if name == "autoattack" else f"{name}(steps=1)"), norm)


def test_a_dropped_last_step_is_told() -> None:
    with pytest.raises(AssertionError):
        one_step_counts(drops_its_last_step, "linf")


# nothing outside is touched


def leaves_gradients_and_generators(attack: Attack, model: nn.Module, x: Tensor, y: Tensor, threat: Threat) -> None:
    """Gradients that a training loop has gathered stay as they are, and so do the generators of Python and numpy.

    (That none appears where there was none, and torch's generator, are laws.)
    """
    for weight in model.parameters():
        weight.requires_grad_().grad = torch.full_like(weight, 3.0)
    random.seed(5)
    np.random.seed(5)  # noqa: NPY002 - the global generator is what is watched
    before = random.getstate(), np.random.get_state()[1].copy()  # noqa: NPY002
    attack(model, x, y, threat=threat, noise=Noise.of(len(x)))
    assert all(weight.grad is not None and bool((weight.grad == 3.0).all()) for weight in model.parameters())
    assert random.getstate() == before[0]
    assert np.array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


def clears_gradients(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    model.zero_grad()
    return pgd(model, x, y, threat=threat, noise=noise)


def adds_to_gradients(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    F.cross_entropy(model(x), y).backward()
    return pgd(model, x, y, threat=threat, noise=noise)


def draws_from_numpy(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    start = torch.from_numpy(np.random.uniform(-1, 1, x.shape))  # noqa: NPY002
    return threat.project(x + threat.eps * start, x)


@every
def test_gradients_and_generators_are_left(name: str, norm: str) -> None:
    net, x = small_net(), pictures(3)
    leaves_gradients_and_generators(attack_named(name), net, x, won_by(net, x), threat_of(norm))


@pytest.mark.parametrize("mutant", [clears_gradients, adds_to_gradients, draws_from_numpy])
def test_a_touched_gradient_or_generator_is_told(mutant: Attack) -> None:
    net, x = small_net(), pictures(3)
    with pytest.raises(AssertionError):
        leaves_gradients_and_generators(mutant, net, x, won_by(net, x), threat_of("linf"))


# over-confident models


class Sure(nn.Module):
    """`model` with its logits times `scale`, in float32: the same answers, and a softmax that rounds to 1."""

    def __init__(self, model: nn.Module, scale: float) -> None:
        super().__init__()
        self.model, self.scale = model, scale

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.model(x) * self.scale
        return logits


def unchanged(x_adv: Tensor, x: Tensor) -> float:
    """The share of examples whose attack changed no pixel."""
    return float((x_adv == x).flatten(1).all(1).float().mean())


def wins_all_the_same(attack: Attack, net: nn.Module, x: Tensor, y: Tensor, threat: Threat, scale: float) -> None:
    """As many examples fall as with small logits, but one, and every picture was changed."""
    sure = Sure(net, scale)
    plain, x_adv = (attack(model, x, y, threat=threat, noise=Noise.of(len(x))) for model in (net, sure))
    assert unchanged(x_adv, x) == 0.0
    assert int(won(sure, x_adv, y).sum()) >= int(won(net, plain, y).sum()) - 1


def usual(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise, start: bool = True) -> Tensor:
    """PGD on the usual cross-entropy, and nothing for a gradient that is zero or half lost."""
    x_adv = threat.sample(x, noise) if start else x
    best, highest = x_adv, torch.full((len(x),), -torch.inf)
    for _ in range(20):
        with torch.enable_grad():
            z = x_adv.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(model(z), y, reduction="sum"), z)
        x_adv = threat.project(x_adv + 0.125 * threat.eps * gradient.sign(), x)
        margin = threat.margin(model(x_adv).detach(), y)
        better = margin > highest
        best, highest = torch.where(better[:, None, None, None], x_adv, best), torch.where(better, margin, highest)
    return best


def from_the_picture(model: nn.Module, x: Tensor, y: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
    return usual(model, x, y, threat=threat, noise=noise, start=False)


@every
def test_an_over_confident_model_falls_all_the_same(name: str, norm: str) -> None:
    net, x = small_net().float(), pictures(N).float()
    wins_all_the_same(attack_named(name), net, x, won_by(net, x), threat_of(norm, 2.0), 1e4)


@pytest.mark.parametrize("scale", [30.0, 100.0, 300.0, 1e4])
@pytest.mark.parametrize("name", ["pgd(steps=20)", "bim", "mi_fgsm", "apgd(steps=20)", "apgd_dlr(steps=20)"])
def test_confidence_protects_nobody(name: str, scale: float) -> None:
    """Between the two ends too, where cross-entropy has a gradient, but one of rounding errors."""
    net, x = small_net().float(), pictures(80).float()
    wins_all_the_same(bind(ATTACKS, name), net, x, won_by(net, x), threat_of("linf"), scale)


@pytest.mark.parametrize("scale", [100.0, 1e4])
@pytest.mark.parametrize("mutant", [usual, from_the_picture])
def test_an_attack_that_confidence_stops_is_told(mutant: Attack, scale: float) -> None:
    net, x = small_net().float(), pictures(80).float()
    with pytest.raises(AssertionError):
        wins_all_the_same(mutant, net, x, won_by(net, x), threat_of("linf"), scale)


def test_a_picture_left_as_it_was_counts_as_unchanged() -> None:
    """Where the gradient is exactly zero, the mutant's signs are too: it hands every picture back."""
    net, x = small_net().float(), pictures(N).float()
    y = won_by(net, x)
    x_adv = from_the_picture(Sure(net, 1e4), x, y, threat=threat_of("linf"), noise=Noise.of(N))
    assert unchanged(x_adv, x) == 1.0


def won_by(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """What `model` says the pictures are."""
    with torch.no_grad():
        return model(x).argmax(1)
