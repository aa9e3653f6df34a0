"""Statistics against published values, and against slow, obvious references over drawn tables; a wrong formula is seen."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from forearm.errors import SpecError
from forearm.evaluate.statistics import (
    Flags,
    Share,
    attack_success,
    broken_at,
    eps_curve,
    mcnemar,
    paired_difference,
    smallest,
    wilson,
    worst_case,
)

Z = 1.959964
flags = st.integers(1, 40).flatmap(lambda n: st.tuples(*[st.lists(st.booleans(), min_size=n, max_size=n)] * 2))
tables = st.tuples(*[st.integers(0, 60)] * 4).filter(lambda t: sum(t) > 0)


def pair(a: int, b: int, c: int, d: int) -> tuple[Flags, Flags]:
    """Two rows of flags: a both, b only the first, c only the second, d neither."""
    return np.array([1] * (a + b) + [0] * (c + d), dtype=bool), np.array([1] * a + [0] * b + [1] * c + [0] * d, dtype=bool)


# Shares


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        (81, 263, 0.2553, 0.3662),  # Newcombe, Statistics in Medicine 1998, table I
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0000, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n, z=Z) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_ends_solve_the_score_equation(pair: tuple[int, int]) -> None:
    successes, n = pair
    share = successes / n
    low, high = wilson(successes, n)
    assert 0.0 <= low <= share <= high <= 1.0
    for end in (low, high):
        if 0.0 < end < 1.0:
            assert abs(share - end) == pytest.approx(1.96 * math.sqrt(end * (1.0 - end) / n), rel=1e-6, abs=1e-9)
    assert wilson(n - successes, n) == pytest.approx((1.0 - high, 1.0 - low), abs=1e-12)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (0, 0), (-1, 5), (6, 5)])
def test_counts_out_of_range(successes: int, n: int) -> None:
    with pytest.raises(SpecError, match="wilson"):
        wilson(successes, n)


def test_a_share_has_its_interval() -> None:
    assert Share(7, 10).value == 0.7
    assert Share(7, 10).interval == wilson(7, 10)


# McNemar


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        (0, 0, 1.0),
        (5, 5, 1.0),
        (1, 0, 1.0),
        (5, 0, 2 / 32),
        (1, 7, 0.0703),  # Fagerland, Lydersen, Laake, Statistics in Medicine 2014: airway hyper-responsiveness, exact conditional
        (6, 16, 0.0525),  # the same, complete response: exact conditional
    ],
)
def test_exact_mcnemar(first: int, second: int, p: float) -> None:
    assert mcnemar(first, second) == pytest.approx(p, abs=5e-5)


def coin_flips(first: int, second: int) -> Fraction:
    """The share of all 2^m ways to split m pictures that are at least as uneven as this one, counted way by way."""
    m = first + second
    ways = [bin(way).count("1") for way in range(2**m)]
    return Fraction(sum(abs(2 * heads - m) >= abs(first - second) for heads in ways), 2**m)


@pytest.mark.parametrize("m", range(13))
def test_mcnemar_counts_coin_flips(m: int) -> None:
    for first in range(m + 1):
        assert mcnemar(first, m - first) == pytest.approx(float(coin_flips(first, m - first)), rel=1e-12)


@given(st.integers(0, 3000), st.integers(0, 3000))
def test_mcnemar_is_a_symmetric_probability(first: int, second: int) -> None:
    p = mcnemar(first, second)
    assert 0.0 <= p <= 1.0
    assert p == mcnemar(second, first)
    assert mcnemar(max(first, second) + 1, min(first, second)) <= p


def test_mcnemar_refuses_negative_counts() -> None:
    with pytest.raises(SpecError, match="mcnemar: got -1 and 2"):
        mcnemar(-1, 2)


# Paired differences


Interval = Callable[[int, int, int, int], tuple[float, float]]


def method_10(a: int, b: int, c: int, d: int, shrink: Fraction = Fraction(1, 2), swap: bool = False) -> tuple[float, float]:
    """Newcombe's method 10 from the four cells, with the ends of Wilson's intervals by bisection of the score equation."""
    n = a + b + c + d
    l1, u1 = by_bisection(a + b, n)
    l2, u2 = by_bisection(a + c, n)
    p1, p2 = (a + b) / n, (a + c) / n
    product = (a + b) * (c + d) * (a + c) * (b + d)
    q = Fraction(a * d - b * c)
    if q > 0:
        q = max(q - shrink * n, Fraction(0))
    phi = float(q) / math.sqrt(product) if product else 0.0
    down, up = (u2 - p2, p2 - l2) if not swap else (p2 - l2, u2 - p2)
    low = math.sqrt(max(0.0, (p1 - l1) ** 2 - 2 * phi * (p1 - l1) * down + down**2))
    high = math.sqrt(max(0.0, (u1 - p1) ** 2 - 2 * phi * (u1 - p1) * up + up**2))
    return (b - c) / n - low, (b - c) / n + high


def by_bisection(successes: int, n: int) -> tuple[float, float]:
    """The two shares from which `successes` of n lies just z standard deviations away."""
    share = successes / n

    def far(end: float) -> bool:
        return abs(share - end) > Z * math.sqrt(end * (1 - end) / n)

    ends = []
    for outer in (0.0, 1.0):
        inner, edge = share, outer
        for _ in range(80):
            middle = (inner + edge) / 2
            inner, edge = (inner, middle) if far(middle) else (middle, edge)
        ends.append(outer if share == outer else inner)
    return ends[0], ends[1]


PUBLISHED = [
    ((36, 12, 2, 0), 0.2000, 0.0569, 0.3404, 5e-5),  # Newcombe, Statistics in Medicine 17:2635, 1998, method 10
    ((20, 12, 2, 16), 0.2000, 0.0562, 0.3292, 5e-5),
    ((14, 5, 0, 22), 0.122, 0.011, 0.226, 6e-4),  # Altman et al., Statistics with Confidence, 2000, table 6.2
    ((1, 1, 7, 12), -0.286, -0.507, -0.026, 6e-4),  # Fagerland, Lydersen, Laake, Statistics in Medicine 2014, square-and-add
]


@pytest.mark.parametrize(("table", "difference", "low", "high", "digits"), PUBLISHED)
def test_published_differences(table: tuple[int, int, int, int], difference: float, low: float, high: float, digits: float) -> None:
    assert paired_difference(*pair(*table), z=Z) == pytest.approx((difference, low, high), abs=digits)


@given(tables)
def test_differences_agree_with_the_slow_reference(table: tuple[int, int, int, int]) -> None:
    difference, low, high = paired_difference(*pair(*table), z=Z)
    assert difference == (table[1] - table[2]) / sum(table)
    assert (low, high) == pytest.approx(method_10(*table), abs=1e-7)
    assert -1.0 <= low <= difference <= high <= 1.0


@given(flags)
def test_the_other_way_round_is_the_mirror_image(rows: tuple[list[bool], list[bool]]) -> None:
    difference, low, high = paired_difference(*rows)
    assert paired_difference(rows[1], rows[0]) == pytest.approx((-difference, -high, -low), abs=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda a, b, c, d: method_10(a, b, c, d, shrink=Fraction(0)),  # method 8
        lambda a, b, c, d: method_10(a, b, c, d, shrink=Fraction(1)),
        lambda a, b, c, d: method_10(a, b, c, d, swap=True),
        lambda a, b, c, d: wald(a, b, c, d),
    ],
)
def test_other_formulas_fail_the_published_values(wrong: Interval) -> None:
    assert any(wrong(*table) != pytest.approx((low, high), abs=digits) for table, _, low, high, digits in PUBLISHED)


def coverage(interval: Interval, p1: float, p2: float, both: float, n: int = 12) -> float:
    """The probability of all tables of n pairs whose interval holds the true difference, table by table."""
    chances = (both, p1 - both, p2 - both, 1 - p1 - p2 + both)
    covered = 0.0
    for a, b, c in itertools.product(range(n + 1), repeat=3):
        table = (a, b, c, n - a - b - c)
        if table[3] < 0:
            continue
        low, high = interval(*table)
        if low <= p1 - p2 <= high:
            ways = math.factorial(n) // math.prod(math.factorial(k) for k in table)
            covered += ways * math.prod(p**k for p, k in zip(chances, table, strict=True))
    return covered


def wald(a: int, b: int, c: int, d: int) -> tuple[float, float]:
    """The textbook interval: difference -+ z standard errors."""
    n = a + b + c + d
    half = Z * math.sqrt(b + c - (b - c) ** 2 / n) / n
    return (b - c) / n - half, (b - c) / n + half


TRUTHS = [(0.5, 0.3, 0.25), (0.9, 0.8, 0.75), (0.95, 0.1, 0.1), (0.6, 0.6, 0.5)]


@pytest.mark.parametrize("truth", TRUTHS)
def test_it_covers_the_truth(truth: tuple[float, float, float]) -> None:
    """Nominally 0.95; at only 12 pairs and shares near the ends it may be short by 0.03, where the textbook's misses by far more."""
    assert coverage(lambda *table: paired_difference(*pair(*table))[1:], *truth) >= 0.92


def test_the_textbook_interval_does_not() -> None:
    assert min(coverage(wald, *truth) for truth in TRUTHS) < 0.85


@pytest.mark.parametrize(("first", "second"), [([True], [True, False]), ([], []), ([1.0], [0.0]), ([[True]], [[True]])])
def test_what_is_no_pair_of_flags(first: object, second: object) -> None:
    with pytest.raises(SpecError, match="paired_difference"):
        paired_difference(np.array(first), np.array(second))  # type: ignore[arg-type, unused-ignore]


# Attacks


@given(flags)
def test_both_denominators(rows: tuple[list[bool], list[bool]]) -> None:
    before = rows[0]
    after = [a and b for a, b in zip(*rows, strict=True)]
    got = attack_success(before, after)
    assert got.accuracy.value == pytest.approx(sum(after) / len(after))
    if not any(before):
        assert got.kept is None
        assert got.fooled is None
        return
    assert got.kept is not None
    assert got.fooled is not None
    assert got.kept.value == pytest.approx(sum(after) / sum(before))
    assert got.kept.successes + got.fooled.successes == got.kept.n == got.fooled.n == sum(before)
    assert got.accuracy.value <= got.kept.value


def test_nobody_becomes_right_by_an_attack() -> None:
    with pytest.raises(SpecError, match="1 examples are right only after"):
        attack_success([False, True], [True, True])


verdicts = st.integers(1, 12).flatmap(
    lambda n: st.lists(
        st.tuples(st.permutations(list(range(100, 100 + n))), st.lists(st.booleans(), min_size=n, max_size=n)), min_size=1, max_size=5
    )
)
Verdicts = list[tuple[list[int], list[bool]]]


def breaches(of: Callable[[dict[str, tuple[list[int], list[bool]]]], tuple[object, object]], drawn: Verdicts) -> list[str]:
    """Which laws of a worst case do not hold of `of` on these attacks."""
    named = {f"attack {i}": attack for i, attack in enumerate(drawn)}
    ids, survivors = (np.asarray(part).tolist() for part in of(named))
    wrong = []
    tables = [dict(zip(*attack, strict=True)) for attack in drawn]
    if dict(zip(ids, survivors, strict=True)) != {i: all(table[i] for table in tables) for i in sorted(drawn[0][0])}:
        wrong.append("an example survives if it survives all")
    if any(sum(survivors) > sum(robust) for _, robust in drawn):
        wrong.append("never above a single attack")
    if len(drawn) > 1:
        without = np.asarray(of(dict(list(named.items())[:-1]))[1])
        if sum(survivors) > without.sum():
            wrong.append("another attack never raises it")
    return wrong


@given(verdicts)
def test_the_laws_of_a_worst_case(drawn: Verdicts) -> None:
    assert breaches(worst_case, drawn) == []


@pytest.mark.parametrize(
    "wrong",
    [
        lambda named: (next(iter(named.values()))[0], np.logical_and.reduce([r for _, r in named.values()])),  # by place, not by id
        lambda named: min(named.values(), key=lambda attack: sum(attack[1])),  # the strongest single attack
        lambda named: (next(iter(named.values()))[0], np.logical_or.reduce([r for _, r in named.values()])),
    ],
)
def test_wrong_worst_cases_are_seen(wrong: Callable[[object], tuple[object, object]]) -> None:
    drawn: Verdicts = [([1, 2, 3, 4], [True, True, False, True]), ([4, 3, 2, 1], [False, True, True, True]), ([2, 3, 4, 1], [True] * 4)]
    assert breaches(worst_case, drawn) == []
    assert breaches(wrong, drawn)


@pytest.mark.parametrize(
    ("attacks", "says"),
    [
        ({}, "no attacks"),
        ({"pgd": ([1, 2], [True, True]), "apgd": ([1, 3], [True, True])}, "apgd and the attacks before it differ in example 2"),
        ({"pgd": ([1, 2], [True, True]), "apgd": ([1], [True])}, "differ in example 2"),
        ({"pgd": ([1, 1], [True, True])}, "pgd has 2 ids for 2 verdicts"),
        ({"pgd": ([1, 2], [True])}, "pgd has 2 ids for 1 verdicts"),
    ],
)
def test_a_worst_case_over_different_examples_is_refused(attacks: dict[str, tuple[list[int], list[bool]]], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        worst_case(attacks)


# Curves


rows = st.integers(1, 20).flatmap(
    lambda n: st.tuples(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n), *[st.lists(st.booleans(), min_size=n, max_size=n)] * 2)
)


@given(rows, st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_a_curve_counts_one_by_one(drawn: tuple[list[float], list[bool], list[bool]], eps: list[float]) -> None:
    distance, robust, before = drawn
    curve = eps_curve(broken_at(distance, robust, before), sorted(eps))
    for radius, share in zip(sorted(eps), curve, strict=True):
        right = 0
        for far, still, was in zip(*drawn, strict=True):
            if was and (still or far > radius * (1 + 1e-5)):
                right += 1
        assert (share.successes, share.n) == (right, len(robust))
    assert all(later.successes <= sooner.successes for sooner, later in itertools.pairwise(curve))


@given(rows, rows)
def test_another_attack_never_raises_the_curve(one: tuple[list[float], ...], two: tuple[list[float], ...]) -> None:
    n = min(len(one[0]), len(two[0]))
    found = [broken_at(*(row[:n] for row in part)) for part in (one, two)]
    eps = [0.0, 0.1, 0.5, 1.0]
    for share, alone in zip(eps_curve(smallest(found), eps), eps_curve(found[0], eps), strict=True):
        assert share.successes <= alone.successes


def test_a_curve_ends_where_the_attack_ends() -> None:
    eps = 8 / 255
    a_hair_outside = float(np.float32(eps) * np.float32(1 + 3e-7))
    broken = broken_at([a_hair_outside, a_hair_outside, 0.0], [False, True, False], [True, True, False])
    assert broken.tolist() == [a_hair_outside, np.inf, 0.0]
    assert [share.successes for share in eps_curve(broken, [0.0, eps / 2, eps])] == [2, 2, 1]


@pytest.mark.parametrize("distance", [[-0.1, 0.0], [float("nan"), 0.0], [0.1]])
def test_what_is_no_distance(distance: list[float]) -> None:
    with pytest.raises(SpecError, match="broken_at"):
        broken_at(distance, [False, False], [True, True])
    with pytest.raises(SpecError, match="eps_curve"):
        eps_curve([], [0.1])
    with pytest.raises(SpecError, match="smallest"):
        smallest([[0.1], distance[:1] * 2])
