"""C&W, DDN, DeepFool and JSMA: the distances they find, and what they return when these are too long."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from forearm.attacks.carlini_wagner import carlini_wagner
from forearm.attacks.ddn import ddn
from forearm.attacks.deepfool import deepfool
from forearm.attacks.jsma import best_pair, jsma
from forearm.core.noise import Noise
from forearm.core.threat import Threat

W = torch.randn(48, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
X = 0.4 + 0.2 * torch.rand(5, 3, 4, 4, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def linear(x: Tensor) -> Tensor:
    z = (x.flatten(1) - 0.45) @ W
    return torch.stack([torch.zeros_like(z), z], 1)


Y = linear(X).argmax(1)
BEST = ((X.flatten(1) - 0.45) @ W).abs() / W.norm()


@pytest.mark.parametrize(
    ("attack", "slack"),
    [
        (partial(carlini_wagner, searches=6, steps=60, rate=0.02, weight=0.1), 1.05),
        (partial(ddn, steps=100, first=0.2), 1.05),
        (deepfool, 1.03),
    ],
    ids=["carlini_wagner", "ddn", "deepfool"],
)
def test_finds_the_distance_of_a_linear_boundary(attack, slack: float) -> None:  # type: ignore[no-untyped-def]
    threat = Threat.parse("l2:5")
    x_adv = attack(linear, X, Y, threat=threat, noise=Noise.of(5))
    found = threat.distance(x_adv, X)
    assert (linear(x_adv).argmax(1) != Y).all()
    assert (found >= BEST - 1e-9).all()
    assert (found <= slack * BEST + 2e-3).all(), found / BEST


@pytest.mark.parametrize("attack", [partial(carlini_wagner, searches=3, steps=30), ddn, deepfool])
def test_too_far_returns_the_best_point_of_the_ball(attack) -> None:  # type: ignore[no-untyped-def]
    """No success within eps: the change has the full size of the ball and takes off most of the margin that eps can."""
    eps = float(BEST.min()) / 2
    threat = Threat.parse(f"l2:{eps}")
    x_adv = attack(linear, X, Y, threat=threat, noise=Noise.of(5))
    lost = threat.margin(linear(x_adv), Y) - threat.margin(linear(X), Y)
    assert torch.allclose(threat.distance(x_adv, X), torch.full((5,), eps, dtype=torch.float64), rtol=1e-6)
    assert (lost > 0.8 * eps * W.norm()).all()


def test_deepfool_is_exact_in_linf() -> None:
    threat = Threat.parse("linf:1")
    x_adv = deepfool(linear, X, Y, threat=threat, noise=Noise.of(5))
    best = ((X.flatten(1) - 0.45) @ W).abs() / W.abs().sum()
    assert (linear(x_adv).argmax(1) != Y).all()
    assert torch.allclose(threat.distance(x_adv, X), 1.02 * best, rtol=1e-2, atol=1e-5)


def test_ddn_can_round_to_levels() -> None:
    x = (X * 255).round() / 255
    x_adv = ddn(linear, x, Y, threat=Threat.parse("l2:5"), noise=Noise.of(5), levels=256)
    assert torch.allclose(x_adv * 255, (x_adv * 255).round(), atol=1e-9)


def test_jsma_changes_few_values_and_those_that_matter() -> None:
    x_adv = jsma(linear, X, Y, threat=Threat.parse("linf:1"), noise=Noise.of(5))
    changed = ((x_adv - X).abs() > 1e-9).flatten(1)
    assert (linear(x_adv).argmax(1) != Y).all()
    assert (changed.sum(1) <= 4).all()
    strongest = W.abs().argsort(descending=True)[:8]
    assert changed[:, strongest].sum() == changed.sum()


def test_a_pair_is_the_best_of_all_pairs() -> None:
    """Against every pair and both signs, one after another."""
    generator = torch.Generator().manual_seed(5)
    alpha, beta = (torch.randn(3, 1, 3, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    free = torch.rand(3, 1, 3, 4, generator=generator) > 0.3
    move = best_pair(alpha, beta, free, free, pool=6).flatten(1)
    for i in range(3):
        best, expected = 0.0, torch.zeros(12, dtype=torch.float64)
        a, b, open_ = alpha[i].flatten(), beta[i].flatten(), free[i].flatten()
        for sign in (1.0, -1.0):
            for p in range(12):
                for q in range(p):
                    up, down = float(sign * (a[p] + a[q])), float(sign * (b[p] + b[q]))
                    if open_[p] and open_[q] and up > 0 > down and -up * down > best:
                        best, expected = -up * down, torch.zeros(12, dtype=torch.float64)
                        expected[[p, q]] = sign
        assert torch.equal(move[i], expected)


def test_jsma_goes_to_its_target() -> None:
    threat = Threat(Threat.parse("linf:1").norm, 1.0, targeted=True)
    x_adv = jsma(linear, X, 1 - Y, threat=threat, noise=Noise.of(5))
    assert torch.equal(linear(x_adv).argmax(1), 1 - Y)
