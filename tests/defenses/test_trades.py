"""TRADES: its divergence against the equation, its ascent against the start, and what training must not touch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forearm.core.threat import Threat
from forearm.data.batches import Batch
from forearm.defenses.training.trades import diverging, kl, trades
from forearm.errors import SpecError
from forearm.models.preact_resnet import preact_resnet

THREAT = Threat.parse("linf:16/255")


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return preact_resnet(classes=3, width=4, blocks=(1, 1)).train()


def batch() -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(torch.rand(6, 3, 16, 16, generator=generator), torch.arange(6) % 3, torch.arange(6))


def test_the_divergence_is_its_equation() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(4, 3, generator=generator).double(), torch.randn(4, 3, generator=generator).double()
    total = sum(float((p * (p / q).log()).sum()) for p, q in zip(a.softmax(1), b.softmax(1), strict=True))
    assert float(kl(a, b)) == pytest.approx(total / 4, rel=1e-12)
    assert float(kl(a, b)) != pytest.approx(float(kl(b, a)), rel=1e-3)


def climbs(x_adv: Tensor, x_start: Tensor) -> None:
    """The law: further from the clean answer than a random point of the ball, and within the ball."""
    model, given = net(), batch()
    clean = model(given.x).detach()
    apart = [float(kl(clean, model(x)).detach()) for x in (x_adv, x_start)]
    assert apart[0] > 100.0 * apart[1]
    assert float(THREAT.distance(x_adv, given.x).max()) <= THREAT.eps + 1e-6


def test_the_ascent_climbs() -> None:
    start = diverging(net(), batch(), THREAT, 0, 0.25)
    climbs(diverging(net(), batch(), THREAT, 5, 0.25), start)
    with pytest.raises(AssertionError):
        climbs(diverging(net(), batch(), THREAT, 5, -0.25), start)  # the mutant goes down, and over the minimum


def test_a_step_trains_every_weight_and_repeats() -> None:
    model, given = net(), batch()
    state = torch.get_rng_state()
    values = trades(THREAT, steps=2)(model, given)
    values["loss"].backward()  # type: ignore[no-untyped-call]
    assert all(p.grad is not None for p in model.parameters())
    assert float(values["divergence"].detach()) > 0.0
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(diverging(net(), given, THREAT, 2, 0.25), diverging(net(), given, THREAT, 2, 0.25))
    assert not torch.equal(diverging(net(), given, THREAT, 2, 0.25), diverging(net(), given, THREAT, 2, 0.25, seed=1))


def test_running_statistics_see_the_two_training_passes_alone() -> None:
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
    diverging(model, batch(), THREAT, 2, 0.25)
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    trades(THREAT, steps=1)(model, batch())
    assert not all(torch.equal(model.state_dict()[name], value) for name, value in before.items())


def test_beta_weighs_the_divergence() -> None:
    losses = {beta: trades(THREAT, beta=beta, steps=1)(net(), batch()) for beta in (0.0, 2.0)}
    torch.testing.assert_close(losses[2.0]["loss"], losses[0.0]["loss"] + 2.0 * losses[2.0]["divergence"])
    with pytest.raises(SpecError, match="beta"):
        trades(THREAT, beta=-1.0)
