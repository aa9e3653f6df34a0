"""Attacks against foolbox on one small net: the same iterates where both do the same, the same distances where they stop differently.

What foolbox does otherwise, and how the comparison meets it:

- PGD returns the last iterate; ours returns the best of all, so the best of its runs of 1, 2, ... steps is compared.
- MI-FGSM adds up steepest directions (signs, for linf) where algorithm 1 adds up gradients divided by their L1 size: that line of it is put right.
- C&W counts `steps` points, the picture itself among them; ours counts the steps between.
- DDN never scores the point after its last step; ours does, and can only be nearer for it.
- DeepFool adds 1e-4 to each step's distance, ours 1e-6.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from forearm.attacks.carlini_wagner import carlini_wagner
from forearm.attacks.ddn import ddn
from forearm.attacks.deepfool import deepfool
from forearm.attacks.momentum import mi_fgsm
from forearm.attacks.pgd import pgd
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from tests.parity.attack_net import best_of, pictures, small_net

foolbox = pytest.importorskip("foolbox", reason="foolbox, a second implementation, is not installed")

N, STEPS = 24, 6
NET = small_net()
X, Y = pictures(NET, N)
FAR = {"linf": Threat.parse("linf:1"), "l2": Threat.parse("l2:20")}  # so large that it cuts no distance


def theirs(attack, eps: float | None) -> Tensor:  # type: ignore[no-untyped-def]
    model = foolbox.PyTorchModel(NET, bounds=(0, 1), device="cpu")
    found: Tensor = attack(model, X, Y, epsilons=eps)[0]
    return found


def ratio(ours: Tensor, other: Tensor, norm: str) -> Tensor:
    """How long our changes are beside theirs, where both win."""
    for x_adv in (ours, other):
        assert (NET(x_adv).argmax(1) != Y).all()
    return FAR[norm].distance(ours, X) / FAR[norm].distance(other, X)


@pytest.mark.parametrize("step", [0.3, 1.5])  # at the second, the last iterate is often not the best
@pytest.mark.parametrize("norm", ["linf:0.01", "l2:0.12"])
def test_pgd_has_the_same_iterates(norm: str, step: float) -> None:
    threat = Threat.parse(norm)
    attack = foolbox.attacks.LinfPGD if norm.startswith("linf") else foolbox.attacks.L2PGD
    ends = [theirs(attack(abs_stepsize=step * threat.eps, steps=k, random_start=False), threat.eps) for k in range(1, STEPS + 1)]
    ours = pgd(NET, X, Y, threat=threat, noise=Noise.of(N), steps=STEPS, step=step, random_start=False)
    assert (ours - best_of(ends, NET, Y)).abs().max() < 1e-9
    assert 0 < int((NET(ours).argmax(1) != Y).sum()) < N


@pytest.mark.parametrize("decay", [1.0, 0.5])
@pytest.mark.parametrize("norm", ["linf:0.01", "l2:0.12"])
def test_mi_fgsm_has_the_same_iterates(norm: str, decay: float, monkeypatch: pytest.MonkeyPatch) -> None:
    threat, attacks = Threat.parse(norm), foolbox.attacks
    attack = attacks.LinfMomentumIterativeFastGradientMethod if norm.startswith("linf") else attacks.L2MomentumIterativeFastGradientMethod
    made = [attack(momentum=decay, abs_stepsize=0.3 * threat.eps, steps=k) for k in range(1, STEPS + 1)]
    directions = [theirs(one, threat.eps) for one in made]
    monkeypatch.setattr(attack, "normalize", lambda self, g, *, x, bounds: g / g.abs().mean(axis=(1, 2, 3), keepdims=True))
    gradients = [theirs(one, threat.eps) for one in made]
    ours = mi_fgsm(NET, X, Y, threat=threat, noise=Noise.of(N), steps=STEPS, step=0.3, decay=decay)
    assert (ours - best_of(gradients, NET, Y)).abs().max() < 1e-9
    assert (ours - best_of(directions, NET, Y)).abs().max() > 1e-6  # what is added up matters here


def test_carlini_wagner_finds_the_same_distances() -> None:
    ours = carlini_wagner(NET, X, Y, threat=FAR["l2"], noise=Noise.of(N), searches=6, steps=80, rate=0.02, weight=0.1)
    attack = foolbox.attacks.L2CarliniWagnerAttack(binary_search_steps=6, steps=81, stepsize=0.02, initial_const=0.1, abort_early=False)
    assert (ratio(ours, theirs(attack, None), "l2") - 1.0).abs().max() < 0.02


def test_ddn_finds_the_same_distances_or_one_step_nearer() -> None:
    ours = ddn(NET, X, Y, threat=FAR["l2"], noise=Noise.of(N), steps=60)
    beside = ratio(ours, theirs(foolbox.attacks.DDNAttack(steps=60), None), "l2")
    assert beside.max() < 1.0 + 1e-6
    assert beside.min() > 0.94  # one more step makes the radius at most 5 % smaller
    assert (beside > 1.0 - 1e-6).sum() >= N // 3  # where that step does not win, they are the same


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_deepfool_finds_the_same_points(norm: str) -> None:
    attack = foolbox.attacks.LinfDeepFoolAttack if norm == "linf" else foolbox.attacks.L2DeepFoolAttack
    ours, other = deepfool(NET, X, Y, threat=FAR[norm], noise=Noise.of(N)), theirs(attack(), None)
    assert (ours - other).abs().max() < 1e-3
    beside = ratio(ours, other, norm)
    assert beside.max() < 1.001  # their 1e-4 a step makes most of theirs a little longer
    assert beside.median() > 0.95


def test_a_wrong_step_is_told_apart() -> None:
    """The comparison can fail: one percent on the step is more than it allows."""
    threat = Threat.parse("linf:0.01")
    attack = foolbox.attacks.LinfPGD(abs_stepsize=0.303 * threat.eps, steps=1, random_start=False)
    ours = pgd(NET, X, Y, threat=threat, noise=Noise.of(N), steps=1, step=0.3, random_start=False)
    assert (ours - theirs(attack, threat.eps)).abs().max() > 1e-5
    assert torch.equal(ours, pgd(NET, X, Y, threat=threat, noise=Noise.of(N), steps=1, step=0.3, random_start=False))
