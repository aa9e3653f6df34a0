"""What stored verdicts add up to: shares with intervals, paired comparisons, worst cases, eps curves. Pure functions of arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forearm.errors import SpecError

Flags = NDArray[np.bool_]
Ids = NDArray[np.int64]
Distances = NDArray[np.float64]

TOUCH = 1e-5  # relative: how far beyond its radius a float32 change on the ball's surface may be measured


@dataclass(frozen=True, slots=True)
class Share:
    """`successes` of `n`, n > 0."""

    successes: int
    n: int

    @property
    def value(self) -> float:
        """successes / n, in [0, 1]."""
        return self.successes / self.n

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % Wilson interval."""
        return wilson(self.successes, self.n)


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The score interval of a share (Wilson, JASA 1927): its lower and upper end in [0, 1]; 95 % at z = 1.96.

        (p + z^2 / 2n -+ z sqrt(p (1 - p) / n + z^2 / 4n^2)) / (1 + z^2 / n),   p = successes / n

    It stays inside [0, 1] and keeps its coverage at shares near 0 and 1, where p -+ z sqrt(p (1 - p) / n) does not.
    SpecError unless 0 <= successes <= n and n > 0.
    """
    if not 0 <= successes <= n or n == 0:
        raise SpecError(f"wilson: got {successes} of {n}; a count from 0 to n, for example 7 of 10")
    share = successes / n
    middle = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1.0 - share) / n + z * z / (4 * n * n))
    scale = 1.0 + z * z / n
    low = 0.0 if successes == 0 else (middle - half) / scale
    high = 1.0 if successes == n else (middle + half) / scale
    return low, high


def mcnemar(only_first: int, only_second: int) -> float:
    """The exact two-sided p-value that two paired shares are equal; in (0, 1].

    Of the m = only_first + only_second pictures on which the two differ, each would be either one's with even chance:

        p = min(1, 2 sum_{k=0}^{min(only_first, only_second)} C(m, k) / 2^m),   and 1 where m = 0

    Computed in integers, so it is right for any m (it may round to 0 below 1e-308). Source: McNemar, Psychometrika 1947,
    in its exact binomial form (Agresti, Categorical Data Analysis, section 10.1). SpecError for negative counts.
    """
    if only_first < 0 or only_second < 0:
        raise SpecError(f"mcnemar: got {only_first} and {only_second}; two counts of 0 or more, for example 12 and 3")
    m = only_first + only_second
    term = tail = 1
    for k in range(min(only_first, only_second)):
        term = term * (m - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / (1 << m))


def paired_difference(first: ArrayLike, second: ArrayLike, z: float = 1.96) -> tuple[float, float, float]:
    """share(first) - share(second) over the same examples, and its interval: (difference, low, high), all in [-1, 1].

    The hybrid score interval for paired data. With the Wilson interval (l, u) of each share p, the table of pairs
    (a both, b only first, c only second, d neither; n in all) and q = ad - bc,

        low  = p1 - p2 - sqrt((p1 - l1)^2 - 2 phi (p1 - l1) (u2 - p2) + (u2 - p2)^2)
        high = p1 - p2 + sqrt((u1 - p1)^2 - 2 phi (u1 - p1) (p2 - l2) + (p2 - l2)^2)
        phi  = (max(q - n/2, 0) if q > 0 else q) / sqrt((a + b) (c + d) (a + c) (b + d)),   0 where that root is 0

    `first`, `second`: flags `n`, in the same order. 95 % at z = 1.96. Source: Newcombe, Statistics in Medicine 17:2635,
    1998, method 10. SpecError for flags that are not two equally long rows of at least one.
    """
    one, two = _flags("paired_difference", first, second)
    n = len(one)
    p1, p2 = int(one.sum()) / n, int(two.sum()) / n
    (l1, u1), (l2, u2) = wilson(int(one.sum()), n, z), wilson(int(two.sum()), n, z)
    phi = _correlation(one, two)
    low = p1 - p2 - _hypotenuse(p1 - l1, u2 - p2, phi)
    high = p1 - p2 + _hypotenuse(u1 - p1, p2 - l2, phi)
    return (int(one.sum()) - int(two.sum())) / n, max(-1.0, low), min(1.0, high)  # only rounding can leave [-1, 1]


def _correlation(one: Flags, two: Flags) -> float:
    """Newcombe's phi: the correlation of two rows of flags, shrunk by n/2 where it is positive."""
    n, first, second = len(one), int(one.sum()), int(two.sum())
    root = math.sqrt(first * (n - first) * second * (n - second))
    if root == 0.0:
        return 0.0
    q = n * int((one & two).sum()) - first * second  # n a - (a + b)(a + c) = ad - bc
    return (max(q - n / 2, 0.0) if q > 0 else q) / root


def _hypotenuse(first: float, second: float, phi: float) -> float:
    return math.sqrt(max(0.0, first * first - 2 * phi * first * second + second * second))


@dataclass(frozen=True, slots=True)
class Attacked:
    """One attack, over both denominators.

    accuracy: right after it, of all. kept: right after it, of those right before it (the papers' AR); fooled: the rest
    of those (the attack's success rate). The last two are None where nothing was right before.
    """

    accuracy: Share
    kept: Share | None
    fooled: Share | None


def attack_success(before: ArrayLike, after: ArrayLike) -> Attacked:
    """Robust accuracy, AR and success rate of one attack. `before`, `after`: whether each example is right, flags `n`.

    SpecError where an example is right after the attack but not before: an attack cannot earn anybody anything, so
    such an example counts as wrong throughout (`robust` is never True where `protected` is False).
    """
    was, still = _flags("attack_success", before, after)
    if bool((still & ~was).any()):
        raise SpecError(f"attack_success: {int((still & ~was).sum())} examples are right only after the attack; count these as wrong")
    n, right, left = len(was), int(was.sum()), int(still.sum())
    return Attacked(Share(left, n), Share(left, right) if right else None, Share(right - left, right) if right else None)


def worst_case(attacks: Mapping[str, tuple[ArrayLike, ArrayLike]]) -> tuple[Ids, Flags]:
    """Which examples survive every attack: (ids ascending, flags in that order).

    attacks: name -> (ids `n`, robust `n`), each in any order. An example is right in the worst case only if it is right
    under every attack, so this share never exceeds any single attack's, and another attack never raises it.
    SpecError where an attack lacks an id that another one has, or has one twice: a worst case over different examples
    is nobody's.
    """
    if not attacks:
        raise SpecError("worst_case: no attacks; at least one, for example {'pgd': (ids, robust)}")
    ids: Ids | None = None
    survivors: Flags | None = None
    for name, (its_ids, robust) in attacks.items():
        mine, flags = np.asarray(its_ids, dtype=np.int64), np.asarray(robust, dtype=np.bool_)
        order = np.argsort(mine, kind="stable")
        mine, flags = mine[order], flags[order] if flags.shape == mine.shape else flags
        if flags.shape != mine.shape or len(np.unique(mine)) < len(mine) or not len(mine):
            raise SpecError(f"worst_case: {name} has {mine.size} ids for {flags.size} verdicts; one verdict for each of its ids")
        if ids is None or survivors is None:
            ids, survivors = mine, flags
            continue
        if not np.array_equal(mine, ids):
            missing = sorted(set(ids.tolist()) ^ set(mine.tolist()))
            raise SpecError(f"worst_case: {name} and the attacks before it differ in example {missing[0]}; the same examples for each")
        survivors = survivors & flags
    assert ids is not None
    assert survivors is not None
    return ids, survivors


def broken_at(distance: ArrayLike, robust: ArrayLike, before: ArrayLike) -> Distances:
    """How far one attack had to go for each example: 0 where it was wrong before, infinity where the attack failed.

    distance: of the attacked picture from the centre, in the threat's norm, `n`; robust, before: right after, right
    before the attack, flags `n`. The minimum over several attacks is the smallest distance found.
    """
    still, was = _flags("broken_at", robust, before)
    size = np.asarray(distance, dtype=np.float64)
    if size.shape != still.shape or bool((size < 0).any()) or bool(np.isnan(size).any()):
        raise SpecError(f"broken_at: {size.size} distances for {still.size} examples; one of 0 or more for each")
    return np.where(~was, 0.0, np.where(still, np.inf, size))


def eps_curve(broken: ArrayLike, eps: Iterable[float]) -> tuple[Share, ...]:
    """Robust accuracy at each radius of `eps`, from one run of attacks that look for the smallest change.

        accuracy(eps) = #{i : broken_i > eps} / n

    broken: from `broken_at`, `n`. It holds for radii up to the one that the attacks were given: beyond it, failed
    attacks say nothing. It never rises with eps. A distance within 1e-5 of eps, relatively, counts as reached: attacks
    end on the ball's surface and float32 measures that a hair outside. Source: the security curves of Carlini et al.,
    arXiv 1902.06705, section 4.3.
    """
    found = np.asarray(broken, dtype=np.float64)
    if found.ndim != 1 or not len(found) or bool(np.isnan(found).any()):
        raise SpecError(f"eps_curve: got {found.size} distances in {found.ndim} dimensions; one for each example")
    return tuple(Share(int((found > radius * (1.0 + TOUCH)).sum()), len(found)) for radius in eps)


def smallest(distances: Sequence[ArrayLike]) -> Distances:
    """The smallest distance found for each example over several attacks: the elementwise minimum of rows `n`."""
    rows = [np.asarray(row, dtype=np.float64) for row in distances]
    if not rows or any(row.shape != rows[0].shape for row in rows):
        raise SpecError(f"smallest: got rows of {[row.size for row in rows]} distances; equally long ones, at least one")
    found: Distances = np.stack(rows).min(axis=0)
    return found


def _flags(where: str, first: ArrayLike, second: ArrayLike) -> tuple[Flags, Flags]:
    one, two = np.asarray(first), np.asarray(second)
    if one.dtype != np.bool_ or two.dtype != np.bool_ or one.ndim != 1 or one.shape != two.shape or not len(one):
        raise SpecError(f"{where}: got {one.dtype} {one.shape} and {two.dtype} {two.shape}; two equally long rows of flags")
    return one, two
