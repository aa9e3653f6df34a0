"""The 8-bit grid and releases that lie within their budget, counted in integers."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from forearm.core.norms import NORMS, Norm
from forearm.core.quantize import levels, release, to_8bit
from forearm.core.threat import Threat

P = {"linf": math.inf, "l2": 2.0, "l1": 1.0}


def grid(*shape: int, seed: int = 0) -> Tensor:
    """Pictures on the 8-bit grid, with whole areas at both ends of the range."""
    k = torch.randint(-60, 316, shape, generator=torch.Generator().manual_seed(seed)).clamp(0, 255)
    return k.float() / 255.0


def midway(*shape: int) -> Tensor:
    """Pictures on the 8-bit grid, far from both ends, so that the box clips no small change."""
    return torch.randint(90, 160, shape, generator=torch.Generator().manual_seed(3)).float() / 255.0


def moved(x: Tensor, threat: Threat, seed: int = 1) -> Tensor:
    """A protected float picture on the rim of the ball."""
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(seed))
    return threat.project(x + 10 * threat.eps * direction, x)


def spent(released: Tensor, x: Tensor) -> Tensor:
    """The change in whole levels, read as a file's reader would."""
    a, b = (released.double() * 255).round(), (x.double() * 255).round()
    assert bool(((released.double() * 255 - a).abs() < 1e-4).all())
    return (a - b).to(torch.int64).flatten(1)


def within(change: Tensor, threat: Threat) -> Tensor:
    """Whether each row of whole-level changes is in the ball, in float64 with one part in 10^9 of grace."""
    size = torch.stack([torch.linalg.vector_norm(row.double(), P[threat.norm.name]) for row in change])
    return size <= 255 * threat.eps * (1 + 1e-9) + 1e-9


def test_every_level_is_its_own() -> None:
    for dtype in (torch.float32, torch.float64):
        k = torch.arange(256)
        assert torch.equal(levels(k.to(dtype) / 255).long(), k)
        assert torch.equal(to_8bit(k.to(dtype) / 255), k.to(dtype) / 255)


def test_rounding_is_to_the_nearest_with_halves_up() -> None:
    halves = (torch.arange(255).double() + 0.5) / 255
    exact = (halves * 255 % 1) == 0.5  # the halves that float64 can hold; both parities are among them
    found = levels(halves)[exact].long()
    assert torch.equal(found, torch.arange(1, 256)[exact])
    assert {int(v) % 2 for v in found} == {0, 1}
    assert not torch.equal((halves[exact] * 255).round().long(), found)  # the mutant: halves to even
    x = torch.rand(10_000, generator=torch.Generator().manual_seed(0)).double()
    assert float((to_8bit(x) - x).abs().max()) <= 0.5 / 255 + 1e-15


def test_just_below_a_half_goes_down() -> None:
    """floor(v + 0.5) in float32 would lift 0.49999997 to 1."""
    below = torch.nextafter(torch.tensor(0.5), torch.tensor(0.0)) / 255
    assert int(levels(below)) == 0


def test_the_ends_of_the_range_hold() -> None:
    assert levels(torch.tensor([-3.0, 0.0, 1.0, 1.7])).tolist() == [0, 0, 255, 255]


@pytest.mark.parametrize(
    "threat", [Threat.parse(t) for t in ("linf:8/255", "linf:8.9/255", "linf:0.4/255", "linf:0", "linf:1",
                                         "l2:0.5", "l2:0.01", "l2:3", "l2:0", "l1:12", "l1:0.3", "l1:0.002")],
    ids=str,
)  # fmt: skip
def test_a_release_is_within_its_budget_and_the_box(threat: Threat) -> None:
    x = torch.cat([grid(4, 3, 16, 16), midway(8, 3, 16, 16)])
    for protected in (moved(x, threat), x, torch.rand(x.shape, generator=torch.Generator().manual_seed(2))):
        out = release(protected, x, threat)
        assert out.dtype == x.dtype
        assert out.shape == x.shape
        assert torch.equal(out, to_8bit(out))
        assert bool(within(spent(out, x), threat).all())


def test_plain_rounding_would_leave_the_ball() -> None:
    """The mutant of the law above, for each norm."""
    x = midway(8, 3, 16, 16)
    for text in ("linf:8.6/255", "l2:0.5", "l1:0.3"):
        threat = Threat.parse(text)
        change = spent(to_8bit(moved(x, threat)), x)
        assert not bool(within(change, threat).all()), text


def test_linf_is_counted_in_whole_levels() -> None:
    x = grid(2, 3, 8, 8)
    for eps, reach in ((8 / 255, 8), (0.031372549019, 8), (8.999 / 255, 8), (0.1, 25), (1 / 255, 1), (0.999 / 255, 0)):
        up = release(torch.ones_like(x), x, Threat(eps=eps))
        expected = (levels(x).long() + reach).clamp_max(255)
        assert torch.equal(levels(up).long(), expected)


def test_linf_is_the_nearest_level_that_is_allowed() -> None:
    threat = Threat.parse("linf:3/255")
    x, protected = grid(1, 1, 8, 8), torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(5))
    out = levels(release(protected, x, threat)).flatten().tolist()
    for k, start, wanted in zip(out, levels(x).flatten().tolist(), protected.double().flatten().tolist(), strict=True):
        allowed = [v for v in range(256) if abs(v - start) <= 3]
        assert k == min(allowed, key=lambda v: abs(v / 255 - wanted))


@pytest.mark.parametrize("name", ["l1", "l2"])
def test_a_rounding_that_fits_is_kept(name: str) -> None:
    x = grid(4, 3, 16, 16)
    protected = moved(x, Threat(NORMS[name], 0.3 if name == "l2" else 8.0))
    assert torch.equal(release(protected, x, Threat(NORMS[name], 1e4)), to_8bit(protected))


@pytest.mark.parametrize("name", ["l1", "l2"])
def test_a_release_on_the_grid_is_kept(name: str) -> None:
    """Idempotent: what lies on the grid and in the ball, its rim included, is what is released."""
    norm = NORMS[name]
    x = grid(1, 1, 4, 4)
    once = release(moved(x, Threat(norm, 0.05)), x, Threat(norm, 0.05))
    rim = Threat(norm, float(norm.size((spent(once, x).double() / 255).reshape(x.shape))))
    assert rim.eps > 0
    assert torch.equal(release(once, x, rim), once)


@pytest.mark.parametrize("name", ["l1", "l2"])
def test_few_pixels_are_shrunk_and_by_one_level(name: str) -> None:
    """Against the best of all roundings of nine pixels, found by trying every one."""
    threat = Threat(NORMS[name], 0.06)
    for seed in range(12):
        x = torch.full((1, 1, 3, 3), 100 / 255)
        protected = moved(x, threat, seed)
        wanted = ((protected - x).double() * 255).flatten().tolist()
        got = spent(release(protected, x, threat), x)[0].tolist()
        assert all(abs(g - w) < 1 + 1e-4 for g, w in zip(got, wanted, strict=True))
        power = 1 if name == "l1" else 2
        budget = (255 * threat.eps) ** power * (1 + 1e-9)
        choices = itertools.product(*[(math.floor(w), math.ceil(w)) for w in wanted])
        errors = [error(c, wanted) for c in choices if sum(abs(v) ** power for v in c) <= budget]
        assert error(got, wanted) <= 1.35 * min(errors)
        assert error([0] * 9, wanted) > 1.35 * min(errors)  # the mutant: give the change up


def error(change: tuple[int, ...] | list[int], wanted: list[float]) -> float:
    """The squared distance to what was wanted."""
    return sum((c - w) ** 2 for c, w in zip(change, wanted, strict=True))


@pytest.mark.parametrize("norm", list(NORMS.values()), ids=lambda n: n.name)
def test_neighbours_do_not_matter(norm: Norm) -> None:
    threat = Threat(norm, {"linf": 0.02, "l2": 0.3, "l1": 5.0}[norm.name])
    x = grid(3, 3, 8, 8)
    protected = moved(x, threat)
    alone = torch.cat([release(protected[i : i + 1], x[i : i + 1], threat) for i in range(3)])
    assert torch.equal(release(protected, x, threat), alone)
