"""Intervals for measured shares."""

from __future__ import annotations

import math

from forearm.errors import SpecError


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
