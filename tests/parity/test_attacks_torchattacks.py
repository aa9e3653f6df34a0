"""Attacks against torchattacks on one small net: the same iterates, the same points.

What torchattacks does otherwise, and how the comparison meets it:

- PGD and MI-FGSM return the last iterate; ours return the best of all, so the best of its runs of 1, 2, ... steps is compared.
- Its L2 step adds 1e-10 to the size of the gradient.
- DeepFool overshoots each step by 2 %, ours (and the paper) their sum once; it ends on the boundary itself, where the last bit decides.
- Its C&W has no search over the constant, so ours has one round; its margin takes a masked 0 for a logit, so it attacks a net whose logits are all 100
  higher; and it stops for all pictures where the sum of their costs has risen: ours makes as many steps.
- Its AutoAttack runs 10 steps where the published one runs 100: not compared (`test_attacks_autoattack.py` compares with the published one).
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forearm.attacks.carlini_wagner import carlini_wagner
from forearm.attacks.deepfool import deepfool
from forearm.attacks.momentum import mi_fgsm
from forearm.attacks.pgd import pgd
from forearm.core.noise import Noise
from forearm.core.threat import Threat
from tests.parity.attack_net import best_of, pictures, small_net

torchattacks = pytest.importorskip("torchattacks", reason="torchattacks, a second implementation, is not installed")

N, STEPS = 24, 6
NET = small_net()
X, Y = pictures(NET, N)


def moved(x_adv: Tensor) -> int:
    return int((NET(x_adv).argmax(1) != Y).sum())


@pytest.mark.parametrize("step", [0.3, 1.5])  # at the second, the last iterate is often not the best
@pytest.mark.parametrize("norm", ["linf:0.01", "l2:0.12"])
def test_pgd_has_the_same_iterates(norm: str, step: float) -> None:
    threat = Threat.parse(norm)
    attack = torchattacks.PGD if norm.startswith("linf") else torchattacks.PGDL2
    ends = [attack(NET, eps=threat.eps, alpha=step * threat.eps, steps=k, random_start=False)(X, Y) for k in range(1, STEPS + 1)]
    ours = pgd(NET, X, Y, threat=threat, noise=Noise.of(N), steps=STEPS, step=step, random_start=False)
    assert (ours - best_of(ends, NET, Y)).abs().max() < 1e-6
    assert 0 < moved(ours) < N


@pytest.mark.parametrize("decay", [1.0, 0.5])
def test_mi_fgsm_has_the_same_iterates(decay: float) -> None:
    threat = Threat.parse("linf:0.01")
    ends = [torchattacks.MIFGSM(NET, eps=threat.eps, alpha=0.3 * threat.eps, decay=decay, steps=k)(X, Y) for k in range(1, STEPS + 1)]
    ours = mi_fgsm(NET, X, Y, threat=threat, noise=Noise.of(N), steps=STEPS, step=0.3, decay=decay)
    assert (ours - best_of(ends, NET, Y)).abs().max() < 1e-6
    plain = pgd(NET, X, Y, threat=threat, noise=Noise.of(N), steps=STEPS, step=0.3, random_start=False)
    assert (ours - plain).abs().max() > 1e-3  # momentum matters here, so its absence would show


class Raised(nn.Module):
    """The net with all logits higher, so the same classes, margins and gradients; it counts how often it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        logits: Tensor = NET(x) + 100.0
        return logits


@pytest.mark.parametrize(("weight", "confidence"), [(0.3, 0.0), (1.0, 0.5)])
def test_carlini_wagner_finds_the_same_points(weight: float, confidence: float) -> None:
    net = Raised().eval()
    other = torchattacks.CW(net, c=weight, kappa=confidence, steps=60, lr=0.02)(X, Y)
    won = NET(other).argmax(1) != Y
    assert int(won.sum()) > N // 2
    for rate, same in ((0.02, True), (0.021, False)):  # and the comparison can fail
        ours = carlini_wagner(
            NET,
            X,
            Y,
            threat=Threat.parse("l2:20"),
            noise=Noise.of(N),
            searches=1,
            steps=net.asked - 1,
            rate=rate,
            weight=weight,
            confidence=confidence,
        )
        assert (float((ours - other)[won].abs().max()) < 1e-5) is same
        assert torch.equal(won, NET(ours).argmax(1) != Y) or not same


def test_deepfool_finds_the_same_distances() -> None:
    threat = Threat.parse("l2:20")
    ours, other = deepfool(NET, X, Y, threat=threat, noise=Noise.of(N)), torchattacks.DeepFool(NET)(X, Y)
    assert moved(ours) == N
    assert (threat.distance(ours, X) / threat.distance(other, X) - 1.0).abs().max() < 0.005
