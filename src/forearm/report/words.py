"""Numbers in words, the same way on every page: shares in per cent, intervals, differences in points, p-values."""

from __future__ import annotations

from forearm.evaluate.statistics import Share


def percent(share: Share | None) -> str:
    """ "47.2", or a dash where there is nothing to count."""
    return "-" if share is None else f"{100 * share.value:.1f}"


def interval(share: Share | None) -> str:
    """ "44.1 to 50.3": the 95 % Wilson interval in per cent."""
    return "" if share is None else _between(share.interval)


def points(difference: float) -> str:
    """ "+12.0": a difference of shares in percentage points."""
    return f"{100 * difference:+.1f}"


def points_interval(ends: tuple[float, float]) -> str:
    """ "+8.1 to +15.7"."""
    return f"{points(ends[0])} to {points(ends[1])}"


def chance(p: float) -> str:
    """ "0.03", "< 0.001"."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}" if p < 0.01 else f"{p:.2f}"


def _between(ends: tuple[float, float]) -> str:
    return f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}"
