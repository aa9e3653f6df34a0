"""Noise: batch independence, quality of the numbers, independent streams, and a format frozen by golden numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from forearm.core.noise import Noise, mix

MASK = (1 << 64) - 1
GOLDEN = 0x9E3779B97F4A7C15
LIKE = torch.zeros(6, 3, 5, 4)

GOLDEN_BITS = [[5876733520225071, 6315957190297641], [1249383295688599, 8746909956485189]]
GOLDEN_UNIFORM = [0.27623358227789463, 0.18383979100743952]
GOLDEN_NORMAL = [-0.12921259170540272, 0.8177041801779829]
GOLDEN_STREAM = [1460107450859598, 8793482924112813]

Draw = Callable[[Noise, Tensor], Tensor]
DRAWS: dict[str, Draw] = {
    "uniform": lambda noise, like: noise.uniform(like, -2.0, 3.0),
    "normal": lambda noise, like: noise.normal(like),
    "integers": lambda noise, like: noise.integers(like, 1000),
}


def splitmix(z: int) -> int:
    """The finaliser of SplitMix64 on unsigned integers of unlimited length."""
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


def reference_bits(seed: int, example: int, draw: int, position: int) -> int:
    """The 53 bits that the format defines for one number."""
    key = splitmix(seed * GOLDEN & MASK)
    for word in (example, draw):
        key = splitmix((key + word * GOLDEN) & MASK)
    return splitmix((key + (position + 1) * GOLDEN) & MASK) >> 11


def test_mix_is_splitmix64_on_unsigned_integers() -> None:
    words = [0, 1, 2, 12345, (1 << 63) - 1, 1 << 63, MASK, 0xDEADBEEFCAFEBABE, GOLDEN]
    signed = torch.tensor([w - (1 << 64) if w >> 63 else w for w in words], dtype=torch.int64)
    assert [int(v) & MASK for v in mix(signed)] == [splitmix(w) for w in words]


@pytest.mark.parametrize("seed", [0, 7, -3, (1 << 63) - 1])
def test_bits_follow_the_format(seed: int) -> None:
    ids = torch.tensor([0, 5, 1 << 40])
    noise = Noise(seed, ids)
    for draw in (1, 2):
        bits = noise.bits((2, 3)).flatten(1)
        assert bits.tolist() == [[reference_bits(seed, i, draw, p) for p in range(6)] for i in ids.tolist()]


def test_golden_numbers() -> None:
    """These may change only with a new major version: runs, resumes and published results depend on them."""
    noise = Noise(0, torch.tensor([0, 1]))
    assert noise.bits((2,)).tolist() == GOLDEN_BITS
    assert noise.uniform(torch.zeros(2, 1, dtype=torch.float64)).flatten().tolist() == GOLDEN_UNIFORM
    torch.testing.assert_close(noise.normal(torch.zeros(2, 1, dtype=torch.float64)).flatten().tolist(), GOLDEN_NORMAL)
    assert noise.stream("start").bits((1,)).flatten().tolist() == GOLDEN_STREAM


@pytest.mark.parametrize("name", DRAWS)
def test_an_example_has_its_noise_in_any_batch(name: str) -> None:
    draw = DRAWS[name]
    ids = torch.tensor([3, 1, 4, 15, 9, 2])
    whole = Noise(5, ids)
    parts = [Noise(5, ids[:4]), Noise(5, ids[4:])]
    order = torch.tensor([2, 0, 5, 1, 4, 3])
    turned = Noise(5, ids[order])
    for _ in range(3):
        expected = draw(whole, LIKE)
        assert torch.equal(torch.cat([draw(parts[0], LIKE[:4]), draw(parts[1], LIKE[4:])]), expected)
        assert torch.equal(draw(turned, LIKE), expected[order])


def test_a_batch_counter_would_be_seen() -> None:
    """The mutant: numbers by position in the batch instead of by id."""
    ids = torch.tensor([3, 1, 4])
    order = torch.tensor([2, 0, 1])
    by_position = Noise(5, torch.arange(3)).bits((8,))
    assert not torch.equal(by_position, by_position[order])
    assert torch.equal(Noise(5, ids[order]).bits((8,)), Noise(5, ids).bits((8,))[order])


def test_draws_seeds_and_examples_differ() -> None:
    """No two of (seed, example, draw) share numbers, not even with their roles exchanged."""
    found = []
    for seed in range(4):
        noise = Noise(seed, torch.arange(4))
        found += [noise.bits((20,)) for _ in range(4)]
    assert len(torch.unique(torch.cat(found))) == 4 * 4 * 4 * 20


@pytest.mark.parametrize("seed", [0, 3])
def test_uniform_is_uniform(seed: int) -> None:
    u = Noise.of(400, seed).uniform(torch.zeros(400, 500, dtype=torch.float64))
    n = u.numel()
    ordered = u.flatten().sort().values
    grid = torch.arange(1, n + 1, dtype=torch.float64) / n
    kolmogorov = max(float((grid - ordered).max()), float((ordered - grid + 1 / n).max())) * math.sqrt(n)
    assert kolmogorov < 1.95  # passed by 99.9 % of truly uniform samples
    for a, b in ((u[:, :-1], u[:, 1:]), (u[:-1], u[1:])):  # neighbours in position, neighbours in id
        correlation = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1]
        assert abs(float(correlation)) < 4.0 / math.sqrt(n)


@pytest.mark.parametrize("before", [0, 3])
def test_draws_made_together_are_those_made_one_by_one(before: int) -> None:
    like = torch.empty(3, 2, 5)
    one, together = Noise(7, torch.tensor([4, 0, 9])), Noise(7, torch.tensor([4, 0, 9]))
    for noise in (one, together):
        for _ in range(before):
            noise.uniform(like)
    alone = torch.stack([one.uniform(like, -0.2, 0.3) for _ in range(4)])
    assert torch.equal(together.uniforms(like, 4, -0.2, 0.3), alone)
    assert torch.equal(together.uniform(like), one.uniform(like))  # and both go on from there
    assert not torch.equal(alone[0], alone[1])


def test_low_bits_of_one_position_over_ids_are_even() -> None:
    bits = Noise.of(20_000, 11).bits((1,)).flatten()
    for k in (0, 1, 26, 52):
        ones = float(((bits >> k) & 1).double().mean())
        assert abs(ones - 0.5) < 4.0 * 0.5 / math.sqrt(len(bits))


def test_normal_has_the_moments_of_a_normal() -> None:
    z = Noise.of(200, 9).normal(torch.zeros(200, 500, dtype=torch.float64)).flatten()
    n = len(z)
    assert abs(float(z.mean())) < 4.0 / math.sqrt(n)
    assert abs(float(z.square().mean()) - 1.0) < 4.0 * math.sqrt(2.0 / n)
    assert abs(float(z.pow(3).mean())) < 4.0 * math.sqrt(15.0 / n)
    assert abs(float(z.pow(4).mean()) - 3.0) < 4.0 * math.sqrt(96.0 / n)
    inside = torch.special.ndtr(z).sort().values
    grid = torch.arange(1, n + 1, dtype=torch.float64) / n
    assert float((grid - inside).abs().max()) * math.sqrt(n) < 1.95


def test_integers_cover_their_range_evenly() -> None:
    values = Noise.of(100, 2).integers(torch.zeros(100, 1000), 7)
    counts = torch.bincount(values.flatten(), minlength=7).double()
    assert len(counts) == 7
    expected = values.numel() / 7
    assert float(((counts - expected) ** 2 / expected).sum()) < 22.5  # chi-square, 6 degrees of freedom, 99.9 %


def test_shape_type_and_range_follow_like() -> None:
    noise = Noise.of(2)
    for dtype in (torch.float32, torch.float64, torch.bfloat16):
        u = noise.uniform(torch.zeros(2, 3, 4, 4, dtype=dtype), -0.25, 0.75)
        assert u.dtype == dtype
        assert u.shape == (2, 3, 4, 4)
        assert float(u.min()) >= -0.25
        assert float(u.max()) <= 0.75
    assert noise.integers(torch.zeros(2, 5), 3).dtype == torch.int64


def test_streams_are_independent() -> None:
    noise = Noise.of(3, seed=4)
    names: list[str | int] = ["start", "restart1", "restart2", "", 0, 1, 31, "1"]
    streams = torch.stack([noise.stream(name).bits((40,)) for name in names] + [noise.bits((40,))])
    assert len(torch.unique(streams)) == streams.numel()
    assert torch.equal(noise.stream("start").bits((40,)), streams[0])  # whatever was drawn in between


def test_streams_of_neighbouring_seeds_do_not_meet() -> None:
    """A key such as seed * 31 + name would give seed 0, stream 31 the numbers of seed 1, stream 0."""
    ids = torch.arange(2)
    assert not torch.equal(Noise(0, ids).stream(31).bits((4,)), Noise(1, ids).stream(0).bits((4,)))


def test_streams_nest_and_take_any_seed() -> None:
    noise = Noise.of(2, seed=(1 << 63) - 1)
    for depth in range(20):
        noise = noise.stream(depth)
    assert -(1 << 63) <= noise.seed < 1 << 63
    assert noise.bits((3,)).shape == (2, 3)


@pytest.mark.parametrize("index", [torch.tensor([4, 0]), torch.tensor([True, False, False, False, True, False])])
def test_at_goes_on_where_its_parent_stands(index: Tensor) -> None:
    noise = Noise.of(6, seed=8)
    noise.uniform(LIKE)
    part = noise.at(index)
    expected = noise.uniform(LIKE)
    assert torch.equal(part.uniform(LIKE[index]), expected[index])
    for _ in range(3):
        part.uniform(LIKE[index])  # the part's own count: the parent's next draw does not move
    fresh = Noise.of(6, seed=8)
    fresh.uniform(LIKE)
    fresh.uniform(LIKE)
    assert torch.equal(noise.uniform(LIKE), fresh.uniform(LIKE))


def test_no_global_generator_is_touched() -> None:
    before = torch.get_rng_state()
    noise = Noise.of(4)
    for draw in DRAWS.values():
        draw(noise.stream("x"), torch.zeros(4, 3, 2, 2))
    assert torch.equal(torch.get_rng_state(), before)
