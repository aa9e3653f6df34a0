"""Norms against slow float64 references, and the geometry that their definitions promise."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from forearm.core.noise import Noise
from forearm.core.norms import L1, L2, LINF, NORMS, Norm, per_example

ALL = list(NORMS.values())
P = {"linf": math.inf, "l2": 2.0, "l1": 1.0}


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def slow_size(d: Tensor, norm: Norm) -> Tensor:
    return torch.stack([torch.linalg.vector_norm(row.double(), P[norm.name]) for row in d.flatten(1)])


def slow_projection(d: Tensor, eps: float, norm: Norm) -> Tensor:
    """The nearest point of the ball: clipping, scaling, and for L1 a bisection for the threshold of soft-thresholding."""
    row = d.double().flatten()
    if norm is LINF:
        return row.clamp(-eps, eps).reshape(d.shape)
    size = float(torch.linalg.vector_norm(row, P[norm.name]))
    if size <= eps:
        return d.double()
    if norm is L2:
        return d.double() * (eps / size)
    low, high = 0.0, float(row.abs().max())
    for _ in range(200):
        theta = (low + high) / 2
        if float((row.abs() - theta).clamp_min(0).sum()) > eps:
            low = theta
        else:
            high = theta
    return (row.sign() * (row.abs() - high).clamp_min(0)).reshape(d.shape)


@pytest.mark.parametrize("norm", ALL, ids=lambda n: n.name)
def test_size_is_the_vector_norm(norm: Norm) -> None:
    d = random(4, 3, 5, 6)
    torch.testing.assert_close(norm.size(d).double(), slow_size(d, norm), rtol=1e-5, atol=0)


@pytest.mark.parametrize("eps", [0.0, 0.05, 1.0, 20.0, 1e4])
@pytest.mark.parametrize("norm", ALL, ids=lambda n: n.name)
def test_projection_is_the_nearest_point(norm: Norm, eps: float) -> None:
    d = random(5, 3, 7, 5).double()
    d[1] = 0.0
    d[2] = 0.3  # ties everywhere
    d[3, 1:] = 0.0
    expected = torch.stack([slow_projection(row, eps, norm) for row in d])
    torch.testing.assert_close(norm.project(d, eps), expected, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(norm.project(d.float(), eps).double(), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ALL, ids=lambda n: n.name)
def test_projection_beats_every_other_point_of_the_ball(norm: Norm) -> None:
    """No reference needed: among points inside, none is closer (first-order condition <d - p, q - p> <= 0)."""
    d, eps = random(1, 2, 4, 4).double() * 3, 1.5
    p = norm.project(d, eps)
    q = norm.sample(torch.zeros(500, 2, 4, 4, dtype=torch.float64), eps, Noise.of(500))
    assert float(((d - p) * (q - p)).flatten(1).sum(1).max()) <= 1e-9


@pytest.mark.parametrize("norm", ALL, ids=lambda n: n.name)
def test_projection_ends_inside_keeps_insiders_and_is_idempotent(norm: Norm) -> None:
    d = random(6, 3, 8, 8)
    eps = float(norm.size(d).median())
    p = norm.project(d, eps)
    assert bool((norm.size(p) <= eps * (1 + 1e-5)).all())
    inside = norm.size(d) <= eps
    assert torch.equal(p[inside], d[inside])
    torch.testing.assert_close(norm.project(p, eps), p, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("norm", ALL, ids=lambda n: n.name)
def test_one_radius_per_example(norm: Norm) -> None:
    d, eps = random(3, 3, 4, 4), torch.tensor([0.1, 1.0, 30.0])
    together = norm.project(d, eps)
    alone = torch.cat([norm.project(d[i : i + 1], float(eps[i])) for i in range(3)])
    torch.testing.assert_close(together, alone)


@pytest.mark.parametrize("norm", ALL, ids=lambda n: n.name)
def test_steepest_rises_more_than_any_unit_direction(norm: Norm) -> None:
    g = random(1, 3, 4, 4).double()
    best = norm.steepest(g)
    assert float(norm.size(best)) == pytest.approx(1.0)
    dual = {"linf": 1.0, "l2": 2.0, "l1": math.inf}[norm.name]
    assert float((best * g).sum()) == pytest.approx(float(torch.linalg.vector_norm(g, dual)))
    other = random(2000, 3, 4, 4, seed=1).double()
    other = other / per_example(norm.size(other), other)
    assert float((other * g).flatten(1).sum(1).max()) <= float((best * g).sum()) + 1e-12


def test_steepest_of_another_norm_is_not_steepest() -> None:
    """The mutant: the L2 direction scaled to unit Linf size rises less."""
    g = random(1, 3, 4, 4).double()
    wrong = L2.steepest(g) / LINF.size(L2.steepest(g))
    assert float((wrong * g).sum()) < 0.9 * float((LINF.steepest(g) * g).sum())


@pytest.mark.parametrize("norm", ALL, ids=lambda n: n.name)
def test_steepest_of_a_zero_gradient_is_zero(norm: Norm) -> None:
    assert torch.equal(norm.steepest(torch.zeros(2, 3, 2, 2)), torch.zeros(2, 3, 2, 2))


@pytest.mark.parametrize("norm", ALL, ids=lambda n: n.name)
def test_samples_fill_the_ball(norm: Norm) -> None:
    """The radius of a uniform point, to the power of the dimension, is uniform in [0, eps^d]; and the mean is 0."""
    n, eps = 4000, 0.7
    like = torch.zeros(n, 1, 2, 3, dtype=torch.float64)
    points = norm.sample(like, eps, Noise.of(n, seed=6))
    radius = norm.size(points) / eps
    assert float(radius.max()) <= 1.0 + 1e-12
    share = (radius ** like[0].numel()).sort().values
    grid = torch.arange(1, n + 1, dtype=torch.float64) / n
    assert float((grid - share).abs().max()) * math.sqrt(n) < 1.95
    flat = points.flatten(1)
    assert float((flat.mean(0).abs() / flat.std(0)).max()) < 4.5 / math.sqrt(n)


def test_l2_directions_fill_the_sphere_evenly() -> None:
    """In three dimensions each coordinate of a unit direction is uniform in [-1, 1] (Archimedes)."""
    n = 4000
    points = L2.sample(torch.zeros(n, 3, 1, 1, dtype=torch.float64), 1.0, Noise.of(n, seed=2))
    direction = L2.steepest(points).flatten(1)
    grid = torch.arange(1, n + 1, dtype=torch.float64) / n
    for axis in range(3):
        share = ((direction[:, axis] + 1.0) / 2.0).sort().values
        assert float((grid - share).abs().max()) * math.sqrt(n) < 1.95


def test_l1_coordinates_have_the_marginal_of_the_ball() -> None:
    """In d dimensions P(|x_1| <= t) = 1 - (1 - t)^d for a uniform point of the L1 unit ball."""
    n, d = 4000, 4
    points = L1.sample(torch.zeros(n, 1, 2, 2, dtype=torch.float64), 1.0, Noise.of(n, seed=3)).flatten(1)
    grid = torch.arange(1, n + 1, dtype=torch.float64) / n
    for axis in range(d):
        share = (1.0 - (1.0 - points[:, axis].abs()) ** d).sort().values
        assert float((grid - share).abs().max()) * math.sqrt(n) < 1.95


def test_per_example_broadcasts() -> None:
    like = torch.zeros(2, 3, 4, 4)
    assert per_example(0.5, like).ndim == 0
    assert per_example(torch.tensor([1.0, 2.0]), like).shape == (2, 1, 1, 1)
