"""AutoAttack and its members against pyautoattack, the published code, on one small net: the same pictures fall.

pyautoattack draws from the global generator, so the two cannot share their starts; what they must share is what falls. `benchmarks/autoattack_parity.py`
compares them at the official schedule on a thousand pictures.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from forearm.attacks.apgd import apgd, apgd_t
from forearm.attacks.autoattack import autoattack
from forearm.attacks.fab import fab_t
from forearm.attacks.square import square
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from tests.parity.attack_net import CLASSES, pictures, small_net

pyautoattack = pytest.importorskip("pyautoattack", reason="pyautoattack, the published code, is not installed")

N, STEPS, QUERIES = 60, 20, 150
NET = small_net(torch.float32)
X, Y = pictures(NET, N, torch.float32)
THREAT = {"Linf": Threat.parse("linf:0.01"), "L2": Threat.parse("l2:0.12")}


def published(norm: str, steps: int = STEPS):  # type: ignore[no-untyped-def]
    """The standard version with a short schedule, for a net of few classes."""
    attack = pyautoattack.AutoAttack(NET, norm=norm, eps=THREAT[norm].eps, version="standard", seed=0)
    for member in (attack.apgd, attack.apgd_targeted):
        member.n_iter = member.n_iter_orig = steps
        member.n_iter_2, member.n_iter_min, member.size_decr = (
            max(int(0.22 * steps), 1),
            max(int(0.06 * steps), 1),
            max(int(0.03 * steps), 1),
        )
        member.seed = 0
    attack.fab.n_iter, attack.square.n_queries, attack.fab.targeted = steps, QUERIES, True
    attack.fab.n_target_classes = attack.apgd_targeted.n_target_classes = CLASSES - 1
    return attack


def fallen(x_adv: Tensor) -> Tensor:
    with torch.no_grad():
        return NET(x_adv).argmax(1) != Y


@pytest.mark.parametrize("norm", ["Linf", "L2"])
def test_the_same_pictures_fall(norm: str) -> None:
    with torch.random.fork_rng(devices=[]):
        theirs = fallen(published(norm).run_standard_evaluation(X, Y)[0])
    ours = fallen(autoattack(NET, X, Y, threat=THREAT[norm], noise=Noise.of(N), steps=STEPS, queries=QUERIES, targets=CLASSES - 1))
    assert 10 < int(ours.sum()) < 50
    assert int((ours != theirs).sum()) <= 1


@pytest.mark.parametrize("norm", ["Linf", "L2"])
@pytest.mark.parametrize("member", ["apgd", "apgd_t", "fab_t", "square"])
def test_a_member_is_as_strong(member: str, norm: str) -> None:
    """Not weaker by more than two of sixty; where ours is stronger, it is because every iterate is scored."""
    attack, threat, noise = published(norm), THREAT[norm], Noise.of(N)
    other = {"apgd": attack.apgd, "apgd_t": attack.apgd_targeted, "fab_t": attack.fab, "square": attack.square}[member]
    with torch.random.fork_rng(devices=[]):
        theirs = int(fallen(other.perturb(X, Y)).sum())
    if member == "square":
        x_adv = square(NET, X, Y, threat=threat, noise=noise, queries=QUERIES, rescale=False)
    elif member == "fab_t":
        x_adv = fab_t(NET, X, Y, threat=threat, noise=noise, steps=STEPS, targets=CLASSES - 1)
    else:
        x_adv = {"apgd": apgd, "apgd_t": apgd_t}[member](NET, X, Y, threat=threat, noise=noise, steps=STEPS)
    assert theirs > 3
    assert int(fallen(x_adv).sum()) >= theirs - 2


def test_a_weaker_cascade_is_told_apart() -> None:
    """The comparison can fail: four fifths of the ball leave pictures standing that the whole brings down."""
    with torch.random.fork_rng(devices=[]):
        theirs = fallen(published("Linf").run_standard_evaluation(X, Y)[0])
    less = Threat(THREAT["Linf"].norm, 0.8 * THREAT["Linf"].eps)
    weak = fallen(autoattack(NET, X, Y, threat=less, noise=Noise.of(N), steps=STEPS, queries=QUERIES, targets=CLASSES - 1))
    assert int((weak != theirs).sum()) > 1
