"""Auto-PGD: its schedule, its L1 projection and its targets."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from forearm.attacks.apgd import apgd, apgd_dlr, apgd_t, checkpoints
from forearm.attacks.apgd_l1 import project_l1_box, sparse_step
from forearm.attacks.pgd import pgd
from forearm.core.noise import Noise
from forearm.core.threat import Threat


def net() -> nn.Module:
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 32), nn.SiLU(), nn.Linear(32, 6)).double()
    for weight in model.parameters():
        weight.data = 2 * torch.randn(weight.shape, generator=generator, dtype=torch.float64) / weight.shape[-1] ** 0.5
    return model


def sample(model: nn.Module, n: int = 24) -> tuple[Tensor, Tensor]:
    x = torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return x, model(x).argmax(1)


def wins(model: nn.Module, x_adv: Tensor, y: Tensor) -> int:
    return int((model(x_adv).argmax(1) != y).sum())


def test_the_checkpoints_are_the_papers() -> None:
    """p = 0.22, 0.41, 0.57, 0.70, 0.80, 0.87, 0.93, 0.99 of 100 steps (section 3.2)."""
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert checkpoints(1) == [1]


@pytest.mark.parametrize("norm", ["linf:0.01", "l2:0.15", "l1:2"])
def test_is_not_weaker_than_pgd(norm: str) -> None:
    model, threat = net(), Threat.parse(norm)
    x, y = sample(model, 12)
    weak = wins(model, pgd(model, x, y, threat=threat, noise=Noise.of(len(x)), steps=10), y)
    for attack in (apgd, apgd_dlr, apgd_t):
        assert wins(model, attack(model, x, y, threat=threat, noise=Noise.of(len(x)), steps=20), y) >= weak, attack
    assert 0 < weak < len(x)


def test_solved_examples_leave() -> None:
    model, asked = net(), []
    x, y = sample(model)

    def counted(x: Tensor) -> Tensor:
        asked.append(len(x))
        return model(x)

    apgd_t(counted, x, y, threat=Threat.parse("linf:1"), noise=Noise.of(len(x)))
    assert sum(asked) < 6 * len(x)


def test_the_loss_climbs_to_a_closed_form() -> None:
    """On a linear two-class model the highest margin is eps |w|_1 above the clean one; the step size must come down to reach it."""
    w = torch.linspace(-1, 1, 192, dtype=torch.float64)

    def linear(x: Tensor) -> Tensor:
        z = 5.0 + (x.flatten(1) - 0.5) @ w
        return torch.stack([z, torch.zeros_like(z)], 1)

    x, y = torch.full((2, 3, 8, 8), 0.5, dtype=torch.float64), torch.zeros(2, dtype=torch.long)
    for name, size in (("linf", w.abs().sum()), ("l2", w.norm())):
        threat = Threat.parse(f"{name}:0.02")
        x_adv = apgd(linear, x, y, threat=threat, noise=Noise.of(2))
        assert torch.allclose(linear(x_adv)[:, 0], 5.0 - 0.02 * size, atol=1e-4)


def test_three_and_two_classes_have_a_loss() -> None:
    for classes in (2, 3):
        model = nn.Sequential(net(), nn.Linear(6, classes).double())
        x, y = sample(model)
        for attack in (apgd_dlr, apgd_t):
            assert wins(model, attack(model, x, y, threat=Threat.parse("linf:0.5"), noise=Noise.of(len(x)), steps=20), y) > 20


def test_the_model_confirms_what_the_twin_claims() -> None:
    """A twin that claims success for the random start: unconfirmed, every example would leave there and then."""
    model, calls, threat = net(), [], Threat.parse("linf:0.01")
    x, y = sample(model)

    def eager(x: Tensor) -> Tensor:
        calls.append(len(x))
        return model(x) * (-1.0 if len(calls) == 1 else 1.0)

    plain = apgd(model, x, y, threat=threat, noise=Noise.of(len(x)), steps=20)
    guided = apgd(model, x, y, threat=threat, noise=Noise.of(len(x)), steps=20, twin=eager)
    assert wins(model, plain, y) > 0
    assert wins(model, guided, y) == wins(model, plain, y)


def test_projection_on_ball_and_box_is_the_nearest_point() -> None:
    """No point of the set found by random search along feasible directions is nearer; and it beats projecting twice."""
    generator = torch.Generator().manual_seed(1)
    x = torch.rand(6, 1, 3, 3, generator=generator, dtype=torch.float64)
    u = x + torch.randn(x.shape, generator=generator, dtype=torch.float64)
    z = project_l1_box(u, x, 1.0)
    assert ((z >= 0) & (z <= 1)).all()
    assert torch.allclose((z - x).flatten(1).abs().sum(1), torch.ones(6, dtype=torch.float64))
    # nearest point of a convex set: <u - z, v - z> <= 0 for every v of the set
    for _ in range(300):
        v = torch.rand(x.shape, generator=generator, dtype=torch.float64)
        d = v - x
        v = x + d * (1.0 / d.flatten(1).abs().sum(1)).clamp_max(1.0)[:, None, None, None]
        assert (((u - z) * (v - z)).flatten(1).sum(1) <= 1e-9).all()
    twice = Threat.parse("l1:1").project(u, x)
    assert ((u - z).flatten(1).norm(dim=1) <= (u - twice).flatten(1).norm(dim=1) + 1e-9).all()
    inside = x + 0.01 * (0.5 - x)
    assert torch.allclose(project_l1_box(inside, x, 1.0), inside, atol=1e-15)


def test_a_sparse_step_has_its_size_and_support() -> None:
    g = torch.arange(1.0, 11.0).reshape(1, 1, 2, 5).repeat(2, 1, 1, 1) * torch.tensor([1.0, -1.0])[:, None, None, None]
    step = sparse_step(g, torch.tensor([0.2, 0.5]), torch.tensor([3.0, 1.0]))
    assert torch.allclose(step.flatten(1).abs().sum(1), torch.tensor([3.0, 1.0]))
    assert (step.flatten(1) != 0).sum(1).tolist() == [2, 5]
    assert (step[1] <= 0).all()
