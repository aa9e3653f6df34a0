"""An attack that is dealt out to threads: the same points, whatever the number of workers; errors reach the caller; settings come back."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor, nn

import forearm
from forearm.attacks.autoattack import autoattack
from forearm.attacks.pgd import pgd
from forearm.attacks.spread import spread
from forearm.core.noise import Noise
from forearm.core.threat import Threat

THREAT = Threat.parse("linf:8/255")


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 49, 4)).double().eval()
    return net.requires_grad_(False)


def pictures(n: int) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 3, 16, 16, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return x, torch.arange(n) % 4


@pytest.mark.parametrize("workers", [1, 2, 3, 50])
@pytest.mark.parametrize("attack", [partial(pgd, steps=5), partial(autoattack, steps=5, queries=20, targets=2)], ids=["pgd", "autoattack"])
def test_spread_finds_what_one_call_finds(model: nn.Module, attack: object, workers: int) -> None:
    x, y = pictures(9)
    noise = Noise(3, torch.arange(20, 29))
    one = attack(model, x, y, threat=THREAT, noise=noise)  # type: ignore[operator]
    many = spread(attack, workers)(model, x, y, threat=THREAT, noise=Noise(3, torch.arange(20, 29)))  # type: ignore[arg-type]
    torch.testing.assert_close(many, one, atol=1e-9, rtol=0.0)
    assert not torch.equal(one, x)


def test_a_group_without_its_own_noise_would_be_seen(model: nn.Module) -> None:
    """The mutant: every group draws as if it were the first."""
    x, y = pictures(9)

    def careless(net: nn.Module, a: Tensor, b: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
        return pgd(net, a, b, threat=threat, noise=Noise.of(len(a)), steps=5)

    one = careless(model, x, y, threat=THREAT, noise=Noise.of(9))
    many = spread(careless, 3)(model, x, y, threat=THREAT, noise=Noise.of(9))
    assert (one - many).abs().max() > 1e-3


def test_the_caller_keeps_its_threads_and_gets_the_error(model: nn.Module) -> None:
    def broken(*_: object, **__: object) -> Tensor:
        raise ValueError("no")

    x, y = pictures(4)
    before = torch.get_num_threads()
    with pytest.raises(ValueError, match="no"):
        spread(broken, 2)(model, x, y, threat=THREAT, noise=Noise.of(4))
    assert torch.get_num_threads() == before


def test_no_pictures(model: nn.Module) -> None:
    x, y = pictures(0)
    assert spread(partial(pgd, steps=2), 2)(model, x, y, threat=THREAT, noise=Noise.of(0)).shape == x.shape


def test_front_door(model: nn.Module) -> None:
    x, y = pictures(5)
    one = forearm.attack("pgd(steps=3)")(model, x, y, threat=THREAT, noise=Noise.of(5))
    two = forearm.attack("pgd(steps=3)", workers=2)(model, x, y, threat=THREAT, noise=Noise.of(5))
    torch.testing.assert_close(one, two, atol=1e-9, rtol=0.0)
