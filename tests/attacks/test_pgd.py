"""PGD: what is scored, what is returned, and the twin."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forearm.attacks.fgsm import bim, fgsm
from forearm.attacks.pgd import pgd
from forearm.core.noise import Noise
from forearm.core.threat import Threat

THREAT = Threat.parse("linf:0.02")


def net() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.SiLU(), nn.Linear(32, 4)).double()
    for weight in model.parameters():
        weight.data = 2 * torch.randn(weight.shape, generator=generator, dtype=torch.float64) / weight.shape[-1] ** 0.5
    return model


def sample(model: nn.Module, n: int = 24) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return x, model(x).argmax(1)


def margin(model: nn.Module, x_adv: Tensor, y: Tensor) -> Tensor:
    return THREAT.margin(model(x_adv).detach(), y)


def slow_pgd(model: nn.Module, x: Tensor, y: Tensor, start: Tensor, steps: int, step: float) -> Tensor:
    """One example and one step at a time, by the book; returns the iterate with the highest margin."""
    ends = []
    for i in range(len(x)):
        points, z = [start[i]], start[i]
        for _ in range(steps):
            z = z.detach().requires_grad_()
            loss = nn.functional.cross_entropy(model(z[None]), y[i : i + 1])
            (g,) = torch.autograd.grad(loss, z)
            z = z.detach() + step * THREAT.eps * g.sign()
            z = torch.maximum(torch.minimum(z, x[i] + THREAT.eps), x[i] - THREAT.eps).clamp(0, 1)
            points.append(z)
        scores = torch.stack([margin(model, p[None], y[i : i + 1])[0] for p in points])
        ends.append(points[int(scores.argmax())])
    return torch.stack(ends)


def test_matches_the_slow_reference() -> None:
    model = net()
    x, y = sample(model)
    start = THREAT.sample(x, Noise.of(len(x), seed=9).stream(0))
    fast = pgd(model, x, y, threat=THREAT, noise=Noise.of(len(x), seed=9), steps=5, step=0.3)
    assert torch.allclose(fast, slow_pgd(model, x, y, start, 5, 0.3), atol=1e-12)


def test_the_last_iterate_is_scored() -> None:
    """With one step from the picture, the only point that can come back is its end."""
    model = net()
    x, y = sample(model)
    x_adv = pgd(model, x, y, threat=THREAT, noise=Noise.of(len(x)), steps=1, step=1.0, random_start=False)
    assert torch.equal(x_adv, fgsm(model, x, y, threat=THREAT, noise=Noise.of(len(x))))
    assert (THREAT.distance(x_adv, x) > 0.019).all()


def test_more_restarts_are_never_weaker() -> None:
    model = net()
    x, y = sample(model)
    one, three = (margin(model, pgd(model, x, y, threat=THREAT, noise=Noise.of(len(x)), steps=3, restarts=r), y) for r in (1, 3))
    assert (three >= one).all()
    assert (three > one).any()


def test_stopping_changes_no_verdict() -> None:
    model = net()
    x, y = sample(model)
    full, stopped = (pgd(model, x, y, threat=THREAT, noise=Noise.of(len(x)), steps=6, restarts=2, stop=stop) for stop in (False, True))
    won = margin(model, full, y) > 0
    assert 0 < int(won.sum()) < len(x)
    assert torch.equal(won, margin(model, stopped, y) > 0)


def test_stopping_asks_less() -> None:
    model, asked = net(), []
    x, y = sample(model)

    def counted(x: Tensor) -> Tensor:
        asked.append(len(x))
        return model(x)

    pgd(counted, x, y, threat=Threat.parse("linf:1"), noise=Noise.of(len(x)), steps=20, stop=True)
    assert sum(asked) < 5 * len(x)


def test_the_model_confirms_what_the_twin_claims() -> None:
    """A twin that claims success for the random start: unconfirmed, that start would be what comes back."""
    model, calls = net(), []
    x, y = sample(model)

    def eager(x: Tensor) -> Tensor:
        calls.append(len(x))
        return model(x) * (-1.0 if len(calls) == 1 else 1.0)

    honest = pgd(model, x, y, threat=THREAT, noise=Noise.of(len(x)))
    for stop in (False, True):
        calls.clear()
        guided = pgd(model, x, y, threat=THREAT, noise=Noise.of(len(x)), twin=eager, stop=stop)
        assert torch.equal(margin(model, honest, y) > 0, margin(model, guided, y) > 0)


@pytest.mark.parametrize("norm", ["linf:0.02", "l2:0.3", "l1:3"])
def test_bim_is_not_weaker_than_fgsm(norm: str) -> None:
    model, threat = net(), Threat.parse(norm)
    x, y = sample(model)
    one = fgsm(model, x, y, threat=threat, noise=Noise.of(len(x)))
    ten = bim(model, x, y, threat=threat, noise=Noise.of(len(x)))
    assert int((margin(model, ten, y) > 0).sum()) >= int((margin(model, one, y) > 0).sum())
    assert margin(model, ten, y).mean() > margin(model, one, y).mean() - 1e-3
