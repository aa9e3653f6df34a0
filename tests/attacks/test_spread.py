"""An attack that is dealt out to processes or threads: the same points, whatever the number of workers; errors reach the caller; settings come back."""

from __future__ import annotations

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
import torch
from torch import Tensor, nn

import forearm
from forearm.attacks.autoattack import autoattack
from forearm.attacks.pgd import pgd
from forearm.attacks.spread import _can_fork, spread
from forearm.core.noise import Noise
from forearm.core.threat import Threat

THREAT = Threat.parse("linf:8/255")


@pytest.fixture(params=["processes", "threads"], autouse=True)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "threads":
        monkeypatch.setattr("forearm.attacks.spread._can_fork", lambda device: False)
    elif not _can_fork(torch.device("cpu")):
        pytest.skip("cannot fork here")
    return str(request.param)


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


def test_each_group_has_a_core_of_its_own(model: nn.Module, kind: str) -> None:
    """Where a group is worked at, and with how many threads, told by its points."""

    def telling(net: nn.Module, a: Tensor, b: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
        where = os.getpid() if kind == "processes" else threading.get_ident()
        time.sleep(0.2)  # long enough that no worker takes two
        return torch.full_like(a, torch.get_num_threads()).index_fill(1, torch.tensor(0), where % 100_003)

    x, y = pictures(4)
    found = spread(telling, 2)(model, x, y, threat=THREAT, noise=Noise.of(4))
    here = (os.getpid() if kind == "processes" else threading.get_ident()) % 100_003
    assert found[0, 0, 0, 0] == found[2, 0, 0, 0]
    assert len({float(v) for v in found[:, 0, 0, 0]} | {float(here)}) == 3
    assert bool((found[:, 1:] == 1).all())


def test_two_spreads_at_once(model: nn.Module) -> None:
    """Children of one are not children of the other."""
    x, y = pictures(4)

    def marking(mark: float) -> Tensor:
        def mark_all(net: nn.Module, a: Tensor, b: Tensor, *, threat: Threat, noise: Noise) -> Tensor:
            return torch.full_like(a, mark)

        return spread(mark_all, 2)(model, x, y, threat=THREAT, noise=Noise.of(4))

    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(marking, [1.0, 2.0]))
    assert [part.unique().tolist() for part in found] == [[1.0], [2.0]]


def test_no_pictures(model: nn.Module) -> None:
    x, y = pictures(0)
    assert spread(partial(pgd, steps=2), 2)(model, x, y, threat=THREAT, noise=Noise.of(0)).shape == x.shape


def test_front_door(model: nn.Module) -> None:
    x, y = pictures(5)
    one = forearm.attack("pgd(steps=3)")(model, x, y, threat=THREAT, noise=Noise.of(5))
    two = forearm.attack("pgd(steps=3)", workers=2)(model, x, y, threat=THREAT, noise=Noise.of(5))
    torch.testing.assert_close(one, two, atol=1e-9, rtol=0.0)
