"""FAB: the exact projection on a hyperplane within the box, and the distance it finds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from forearm.attacks.fab import fab, fab_t, to_hyperplane
from forearm.core.noise import Noise
from forearm.core.norms import NORMS, Norm
from forearm.core.threat import Threat


def reached(x: Tensor, w: Tensor, b: Tensor, size: float, norm: Norm) -> bool:
    """Whether a change of `size` within the box reaches the plane: the largest gain is found without any sorting by knees."""
    sign = -(float((x * w).sum() + b) > 0) * 2.0 + 1.0
    room = torch.where(sign * w > 0, 1 - x, x)
    weight = w.abs()
    if norm.name == "linf":
        gain = (weight * room.clamp_max(size)).sum()
    elif norm.name == "l1":
        left, gain = size, torch.zeros(())
        for i in weight.flatten().argsort(descending=True).tolist():
            used = min(left, float(room.flatten()[i]))
            gain, left = gain + used * weight.flatten()[i], left - used
    else:  # bisect the multiplier of the box-constrained linear programme on the ball
        low, high = 0.0, 1e6
        for _ in range(200):
            t = (low + high) / 2
            low, high = (t, high) if torch.minimum(t * weight, room).norm() < size else (low, t)
        gain = (weight * torch.minimum(low * weight, room)).sum()
    return bool(gain >= (float((x * w).sum() + b)) * -sign - 1e-9)


@pytest.mark.parametrize("norm", NORMS.values(), ids=list(NORMS))
def test_reaches_the_plane_by_the_smallest_change(norm: Norm) -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        x = torch.rand(1, 1, 3, 4, generator=generator, dtype=torch.float64)
        w = torch.randn(1, 1, 3, 4, generator=generator, dtype=torch.float64)
        b = 0.6 * torch.randn(1, generator=generator, dtype=torch.float64)
        d = to_hyperplane(x, w, (x * w).sum() + b, norm)
        z = x + d
        assert ((z >= -1e-12) & (z <= 1 + 1e-12)).all()
        size = float(norm.size(d))
        if reached(x, w, b, 1e3, norm):
            assert abs(float((z * w).sum() + b)) < 1e-9
            assert not reached(x, w, b, 0.999 * size - 1e-9, norm)
        else:  # out of reach: the corner of the box that comes nearest
            assert torch.allclose(z, z.round(), atol=1e-12)


@pytest.mark.parametrize("norm", NORMS.values(), ids=list(NORMS))
def test_a_change_does_not_depend_on_its_batch(norm: Norm) -> None:
    """To the last bit, though the search for all of a batch ends when its slowest example has ended."""
    generator = torch.Generator().manual_seed(1)
    x, w = torch.rand(9, 3, 6, 6, generator=generator), torch.randn(9, 3, 6, 6, generator=generator)
    gap = torch.linspace(-40.0, 40.0, 9)
    together = to_hyperplane(x, w, gap, norm)
    for i in range(9):
        assert torch.equal(together[i : i + 1], to_hyperplane(x[i : i + 1], w[i : i + 1], gap[i : i + 1], norm))


@pytest.mark.parametrize("norm", NORMS.values(), ids=list(NORMS))
def test_no_slope_is_no_change(norm: Norm) -> None:
    x = torch.rand(2, 1, 3, 4, generator=torch.Generator().manual_seed(2))
    assert not to_hyperplane(x, torch.zeros_like(x), torch.tensor([-1.0, 0.0]), norm).any()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("attack", [fab, fab_t])
def test_finds_the_distance_of_a_linear_boundary(attack, norm: str) -> None:  # type: ignore[no-untyped-def]
    w = torch.randn(27, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def linear(x: Tensor) -> Tensor:
        z = x.flatten(1) @ w
        return torch.stack([torch.zeros_like(z), z, -9 + z], 1)

    x = 0.4 + 0.2 * torch.rand(4, 3, 3, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    y = linear(x).argmax(1)
    threat = Threat.parse(f"{norm}:5")
    x_adv = attack(linear, x, y, threat=threat, noise=Noise.of(4), steps=20)
    dual = {"linf": w.abs().sum(), "l2": w.norm(), "l1": w.abs().max()}[norm]
    best = (x.flatten(1) @ w).abs() / dual
    found = threat.distance(x_adv, x)
    assert (linear(x_adv).argmax(1) != y).all()
    assert (found >= best).all()
    assert (found <= 1.06 * best).all()
