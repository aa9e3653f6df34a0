"""Square attack: its schedule, its kernels and that it needs no gradient."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import Tensor

from forearm.attacks.autoattack import autoattack
from forearm.attacks.square import bump, patch_share, square
from forearm.core.noise import Noise
from forearm.core.threat import Threat


def test_the_patch_shrinks_as_published() -> None:
    """0.8 halved after 10, 50, 200, 500, 1000, 2000, 4000, 6000 and 8000 of 10,000 queries."""
    assert patch_share(5, 5000, 0.8) == 0.8
    assert patch_share(6, 5000, 0.8) == 0.4
    assert patch_share(4999, 5000, 0.8) == 0.8 / 512


def test_autoattack_shrinks_it_by_the_query_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """The published AutoAttack halves the patch after 10, 50, 200, ... of its 5,000 queries, as if there were 10,000."""
    module, told = sys.modules["forearm.attacks.square"], []

    def listening(query: int, queries: int, share: float) -> float:
        told.append((query, queries))
        return patch_share(query, queries, share)

    monkeypatch.setattr(module, "patch_share", listening)
    x, y = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.zeros(2, dtype=torch.long)

    def sure(x: Tensor) -> Tensor:
        return torch.stack([9.0 + x.flatten(1).mean(1), *(x[:, 0, 0, k] for k in range(3))], 1)

    autoattack(sure, x, y, threat=Threat.parse("linf:0.01"), noise=Noise.of(2), steps=1, queries=20)
    square(sure, x, y, threat=Threat.parse("linf:0.01"), noise=Noise.of(2), queries=20)
    assert told == [(query, 10_000) for query in range(1, 20)] + [(query, 20) for query in range(1, 20)]


@pytest.mark.parametrize("side", [3, 5, 8, 15])
def test_a_bump_has_unit_size_and_two_signs(side: int) -> None:
    kernel = bump(side)
    assert torch.allclose(kernel.norm(), torch.ones((), dtype=torch.float64))
    assert (kernel[: side // 2] > 0).all()
    assert (kernel[side // 2 :] < 0).all()


@pytest.mark.parametrize("norm", ["linf:0.1", "l2:1.5"])
@pytest.mark.parametrize("targeted", [False, True])
def test_wins_by_answers_alone(norm: str, targeted: bool) -> None:
    w = torch.randn(192, generator=torch.Generator().manual_seed(0))
    asked = []

    def answers(x: Tensor) -> Tensor:
        assert not x.requires_grad
        assert not torch.is_grad_enabled()
        asked.append(len(x))
        z = (x.flatten(1) - 0.5) @ w
        return torch.stack([z, -z, torch.full_like(z, -9.0)], 1)

    x = torch.rand(8, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = answers(x).argmax(1)
    asked.clear()
    plain = Threat.parse(norm)
    threat = Threat(plain.norm, plain.eps, targeted)
    label = 1 - y if targeted else y
    x_adv = square(answers, x, label, threat=threat, noise=Noise.of(8), queries=150)
    with torch.no_grad():
        assert int((answers(x_adv).argmax(1) != y).sum()) >= 5
    assert len(asked) <= 151
    assert asked[0] == 8
    assert min(asked) < 8  # who has won leaves
