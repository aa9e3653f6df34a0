"""Losses against their formulas, written out one example at a time in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from forearm.core.losses import LOSSES, cross_entropy, dlr, margin, targeted_dlr


def batch(n: int = 20, k: int = 6) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    return 3 * torch.randn(n, k, generator=generator).double(), torch.randint(0, k, (n,), generator=generator)


def rows() -> list[tuple[list[float], int]]:
    logits, y = batch()
    return list(zip(logits.tolist(), y.tolist(), strict=True))


def test_cross_entropy() -> None:
    expected = [-math.log(math.exp(z[y]) / sum(math.exp(v) for v in z)) for z, y in rows()]
    assert cross_entropy(*batch()).tolist() == pytest.approx(expected)


def test_margin() -> None:
    expected = [max(v for i, v in enumerate(z) if i != y) - z[y] for z, y in rows()]
    assert margin(*batch()).tolist() == pytest.approx(expected)
    logits, y = batch()
    assert torch.equal(margin(logits, y) > 0, logits.argmax(1) != y)


def test_dlr() -> None:
    expected = []
    for z, y in rows():
        top = sorted(z, reverse=True)
        other = max(v for i, v in enumerate(z) if i != y)
        expected.append(-(z[y] - other) / (top[0] - top[2]))
    assert dlr(*batch()).tolist() == pytest.approx(expected)


def test_targeted_dlr() -> None:
    logits, y = batch()
    target = (y + 1) % 6
    expected = []
    for (z, own), wanted in zip(rows(), target.tolist(), strict=True):
        top = sorted(z, reverse=True)
        expected.append(-(z[own] - z[wanted]) / (top[0] - (top[2] + top[3]) / 2))
    assert targeted_dlr(logits, y, target).tolist() == pytest.approx(expected)


def test_dlr_does_not_see_the_scale_or_an_offset() -> None:
    logits, y = batch()
    torch.testing.assert_close(dlr(100 * logits - 7, y), dlr(logits, y), rtol=1e-9, atol=1e-9)
    assert not torch.allclose(cross_entropy(100 * logits - 7, y), cross_entropy(logits, y))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_one_finite_number_per_example_that_falls_with_its_logit(name: str) -> None:
    logits, y = batch()
    logits = logits.float().requires_grad_()
    values = LOSSES[name](logits, y)
    assert values.shape == (20,)
    assert bool(values.isfinite().all())
    (gradient,) = torch.autograd.grad(values.sum(), logits)
    own = gradient.gather(1, y[:, None])
    assert bool((own <= 1e-6).all())  # DLR does not move where y is the third class
    assert bool((own < -1e-6).any())
    alone = torch.cat([LOSSES[name](logits[i : i + 1], y[i : i + 1]) for i in range(20)])
    torch.testing.assert_close(alone, values)


def test_equal_logits_do_not_divide_by_zero() -> None:
    flat, y = torch.zeros(2, 5), torch.tensor([0, 4])
    assert dlr(flat, y).tolist() == [0.0, 0.0]
    assert targeted_dlr(flat, y, torch.tensor([1, 1])).tolist() == [0.0, 0.0]
