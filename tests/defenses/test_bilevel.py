"""The bi-level defence against its slow float64 reference, and what its ways back through the attack have in common."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from forearm.core.noise import Noise
from forearm.core.threat import Threat
from forearm.defenses.preemptive import bilevel as method
from forearm.errors import SpecError

LINF, L2 = Threat.parse("linf:8/255"), Threat.parse("l2:0.5")
EPS = LINF.eps
Y = torch.tensor([0, 3])


def small_net() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 6, 3, padding=1), nn.Tanh(), nn.Conv2d(6, 4, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(36, 5)
    return nn.Sequential(*layers).double()


def pictures(low: float = 0.0, high: float = 1.0) -> Tensor:
    return Noise.of(2, seed=11).uniform(torch.empty(2, 3, 7, 8, dtype=torch.float64), low, high)


def loss(model: nn.Module, z: Tensor, y: Tensor) -> Tensor:
    return -torch.log_softmax(model(z[None])[0], 0)[y]


def worst(model: nn.Module, center: Tensor, y: Tensor, start: Tensor, inner: int, clipped_after: bool = True) -> tuple[Tensor, Tensor]:
    """PGD from `start`, and which values of its end still move with the centre: those that no border of [0, 1] holds."""
    z = torch.clamp(center + start, 0.0, 1.0)
    moves = ((center + start > 0) & (center + start < 1)).double()
    for _ in range(inner):
        z = z.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(loss(model, z, y), z)
        moved = z.detach() + 0.25 * EPS * gradient.sign()
        held = (moved - center).abs() > EPS  # carried by the ball's border, which moves with the centre, from here on
        moves = torch.where(held, torch.ones_like(moves), moves)
        moved = torch.minimum(torch.maximum(moved, center - EPS), center + EPS)
        if clipped_after:
            moves = moves * ((moved >= 0) & (moved <= 1)).double()
        z = moved.clamp(0.0, 1.0)
    return z.detach(), moves


def reference(model: nn.Module, x: Tensor, y: Tensor, noise: Noise, steps: int, inner: int, through: str) -> Tensor:
    """The method page in float64, one picture at a time, with torch's own RMSprop in tanh space and the way back through PGD by hand."""
    low, high = (x - EPS).clamp(min=0.0), (x + EPS).clamp(max=1.0)
    start = (x + noise.uniform(x[None], -EPS, EPS)[0]).clamp(0.0, 1.0)
    w = nn.Parameter(torch.atanh(0.9995 * (2.0 * (start - low) / (high - low) - 1.0)))
    optimizer = torch.optim.RMSprop([w], lr=0.1)
    release = start
    for _ in range(steps):
        end, moves = worst(model, release.detach(), y, noise.uniform(x[None], -EPS, EPS)[0], inner)
        end.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(model, end, y), end)
        gradient = gradient * moves if through == "steps" else gradient
        w.grad = gradient * (high - low) / 2.0 * (1.0 - torch.tanh(w.detach()) ** 2)
        optimizer.step()
        release = low + (torch.tanh(w.detach()) + 1.0) / 2.0 * (high - low)
    return release


@pytest.mark.parametrize("through", ["steps", "end"])
def test_parity_in_float64(through: str) -> None:
    model, x = small_net(), pictures()
    ours = method.bilevel(model, x, Y, threat=LINF, noise=Noise.of(2, seed=5), steps=4, inner=3, through=through)
    for i in range(2):
        theirs = reference(model, x[i], Y[i], Noise(5, torch.tensor([i])), steps=4, inner=3, through=through)
        assert float((ours[i] - theirs).abs().max()) < 1e-9


def test_the_ways_back_differ_where_the_box_clips() -> None:
    """So the parity above tells them apart: in these pictures some values lie within eps of 0 or 1."""
    model, x = small_net(), pictures()
    one, other = (
        method.bilevel(model, x, Y, threat=LINF, noise=Noise.of(2, seed=5), steps=4, inner=3, through=t) for t in ("steps", "end")
    )
    assert float((one - other).abs().max()) > 1e-4


def test_for_linf_all_ways_back_agree_away_from_the_box() -> None:
    model, x = small_net(), pictures(0.2, 0.8)
    made = [method.bilevel(model, x, Y, threat=LINF, noise=Noise.of(2, seed=5), steps=2, inner=2, through=t) for t in method.THROUGH]
    assert float((made[0] - made[1]).abs().max()) < 1e-9
    assert float((made[0] - made[2]).abs().max()) < 1e-9


def attacked(model: nn.Module, release: Tensor, start: Tensor) -> Tensor:
    """The loss after three unrolled L2 steps from release + start, as one differentiable formula."""
    z = (release + start).clamp(0.0, 1.0)
    for _ in range(3):
        (gradient,) = torch.autograd.grad(sum(loss(model, z[i], Y[i]) for i in range(2)), z, create_graph=True)
        z = L2.project(z + 0.25 * L2.eps * L2.norm.steepest(gradient), release)
    return torch.stack([loss(model, z[i], Y[i]) for i in range(2)]).sum()


def test_curvature_is_the_derivative_of_the_attacked_loss() -> None:
    """Against central differences in L2, where the inner gradients do change with the release."""
    model, x = small_net(), pictures(0.3, 0.7)
    ways = {
        through: method.outer_gradient(model, x, Y, threat=L2, noise=Noise.of(2, seed=7), inner=3, step=0.25, through=through)
        for through in method.THROUGH
    }
    start = L2.norm.sample(x, L2.eps, Noise.of(2, seed=7))
    direction = Noise.of(2, seed=9).normal(x)
    h = 1e-5
    ahead, behind = (attacked(model, (x + sign * h * direction).requires_grad_(), start).item() for sign in (1.0, -1.0))
    slope = (ahead - behind) / (2 * h)
    assert math.isclose(float((ways["curvature"] * direction).sum()), slope, rel_tol=1e-6)
    assert not math.isclose(float((ways["steps"] * direction).sum()), slope, rel_tol=5e-5)


def test_rmsprop_is_that_of_torch() -> None:
    w, square = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    theirs = nn.Parameter(w.clone())
    optimizer = torch.optim.RMSprop([theirs], lr=0.1)
    for k in range(5):
        gradient = torch.tensor([1.0, -2.0, 1e-9], dtype=torch.float64) * (k + 1)
        w, square = method.rmsprop(w, gradient, square, 0.1)
        theirs.grad = gradient
        optimizer.step()
    assert torch.allclose(w, theirs.detach(), atol=1e-12)


def test_the_box_is_the_ball_within_the_range() -> None:
    x = torch.tensor([0.0, 0.01, 0.5, 1.0], dtype=torch.float64).reshape(1, 1, 2, 2)
    box = method.Box.around(x, EPS)
    far = torch.full_like(x, 50.0)
    assert torch.allclose(box.place(far), (x + EPS).clamp(max=1.0))
    assert torch.allclose(box.place(-far), (x - EPS).clamp(min=0.0))
    inside = box.place(torch.full_like(x, 0.3))
    assert torch.allclose(box.place(box.inverse(inside)), inside, atol=2 * EPS * (1 - method.INSIDE))
    assert torch.equal(method.Box.around(x, 0.0).place(method.Box.around(x, 0.0).inverse(x)), x)


def counted(threat: Threat, steps: int, inner: int) -> int:
    model, calls = small_net(), 0

    def counting(z: Tensor) -> Tensor:
        nonlocal calls
        calls += 1
        logits: Tensor = model(z)
        return logits

    method.bilevel(counting, pictures(), Y, threat=threat, noise=Noise.of(2), steps=steps, inner=inner)
    return calls


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_cost_in_gradients(threat: Threat) -> None:
    assert counted(threat, 3, 4) == 3 * (4 + 1)


@pytest.mark.parametrize("threat", [LINF, L2], ids=str)
def test_the_worst_neighbour_gets_better(threat: Threat) -> None:
    """The loss that the inner attack reaches falls, more than it does for pictures in random places of the ball."""
    model, x = small_net(), pictures()

    def reached(release: Tensor) -> float:
        total = 0.0
        for seed in range(3):
            z = threat.sample(release, Noise.of(2, seed=100 + seed))
            for _ in range(5):
                z = z.detach().requires_grad_()
                (gradient,) = torch.autograd.grad(sum(loss(model, z[i], Y[i]) for i in range(2)), z)
                z = threat.project(z.detach() + 0.25 * threat.eps * threat.norm.steepest(gradient), release)
            total += sum(float(loss(model, z[i], Y[i]).detach()) for i in range(2))
        return total

    made = method.bilevel(model, x, Y, threat=threat, noise=Noise.of(2, seed=1), steps=8, inner=3)
    assert reached(made) < min(reached(x), reached(threat.sample(x, Noise.of(2, seed=2)))) - 0.01


def test_a_picture_does_not_depend_on_its_batch() -> None:
    model, x = small_net(), pictures()
    whole = method.bilevel(model, x, Y, threat=LINF, noise=Noise.of(2, seed=5), steps=3, inner=2)
    alone = method.bilevel(model, x[1:], Y[1:], threat=LINF, noise=Noise(5, torch.tensor([1])), steps=3, inner=2)
    assert torch.allclose(whole[1:], alone, atol=1e-12)


def test_another_way_back_is_refused() -> None:
    with pytest.raises(SpecError, match="through: got 'beside'; one of steps, end, curvature"):
        method.bilevel(small_net(), pictures(), Y, threat=LINF, noise=Noise.of(2), through="beside")
