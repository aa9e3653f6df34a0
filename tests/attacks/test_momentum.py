"""MI-FGSM: momentum, input diversity, smoothed gradients and the surrogate."""

from __future__ import annotations

import torch
from torch import Tensor

from forearm.attacks.fgsm import bim
from forearm.attacks.momentum import diverse, mi_fgsm, smoothed
from forearm.core.noise import Noise
from forearm.core.threat import Threat

THREAT = Threat.parse("linf:0.05")
W = torch.randn(3, 192, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
X = torch.rand(6, 3, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def model(x: Tensor) -> Tensor:
    return torch.tanh((x.flatten(1) - 0.5) @ W.T)


Y = model(X).argmax(1)


def test_without_decay_it_is_bim() -> None:
    plain = bim(model, X, Y, threat=THREAT, noise=Noise.of(6), steps=5, step=0.2)
    assert torch.allclose(mi_fgsm(model, X, Y, threat=THREAT, noise=Noise.of(6), steps=5, decay=0.0), plain, atol=1e-15)


def test_transfer_never_asks_the_victim() -> None:
    def silent(x: Tensor) -> Tensor:
        raise AssertionError("asked")

    x_adv = mi_fgsm(silent, X, Y, threat=THREAT, noise=Noise.of(6), source=model, diversity=0.5, kernel=3)
    assert (model(x_adv).argmax(1) != Y).sum() >= 3


def test_diverse_draws_are_fixed_and_per_picture() -> None:
    noise = Noise.of(6)
    seen = diverse(lambda x: x, X, noise, chance=0.5, shrink=0.7)
    first = seen(X)
    assert torch.equal(first, seen(X))
    same = (first == X).flatten(1).all(1)
    assert 0 < int(same.sum()) < 6
    part = diverse(lambda x: x, X[2:4], Noise.of(2, first=2), chance=0.5, shrink=0.7)(X[2:4])
    assert torch.allclose(part, first[2:4], atol=1e-12)
    assert torch.equal(diverse(lambda x: x, X, noise, chance=0.0, shrink=0.7)(X), X)


def test_a_shrunk_picture_keeps_its_inside() -> None:
    """A white picture stays white where it lies and black around it, and its mean tells its area."""
    white = torch.ones(64, 1, 32, 32, dtype=torch.float64)
    seen = diverse(lambda x: x, white, Noise.of(64), chance=1.0, shrink=0.5)(white)
    area = seen.flatten(1).mean(1)
    assert 0.2 < float(area.min()) < 0.4
    assert 0.8 < float(area.max()) <= 1.0
    assert abs(float(area.mean()) - 7 / 12) < 0.08  # mean of s^2 for s uniform in [1/2, 1]


def test_smoothing_keeps_a_constant_and_its_sum() -> None:
    inside = smoothed(torch.ones(1, 3, 9, 9), 5)[:, :, 2:-2, 2:-2]
    assert torch.allclose(inside, torch.ones_like(inside), atol=1e-6)
    spike = torch.zeros(1, 1, 9, 9)
    spike[0, 0, 4, 4] = 1.0
    spread = smoothed(spike, 5)
    assert abs(float(spread.sum()) - 1.0) < 1e-6
    assert torch.allclose(spread, spread.flip(2))
    assert torch.allclose(spread, spread.transpose(2, 3))
