"""Eps curves as figures: coordinates for an inline drawing that follows the page's colours, and PNG plots for papers."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

from forearm.core.threat import Threat
from forearm.evaluate.statistics import Share
from forearm.report.findings import Bench
from forearm.report.words import percent

Curve = Sequence[tuple[float, Share]]

WIDTH, HEIGHT = 640, 300  # of the drawing; the frame leaves room for the axes
LEFT, RIGHT, TOP, BOTTOM = 56, 12, 12, 44
TICKS = (0, 25, 50, 75, 100)
STYLES = ("-", "--", ":", "-.")


@dataclass(frozen=True, slots=True)
class Drawn:
    """One curve as points of the drawing: "x,y x,y ..."; `style`: which colour and dash, from 0."""

    name: str
    style: int
    line: str
    band: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing: curves, ticks as (position, text), and the same numbers as a table, one row a radius."""

    curves: tuple[Drawn, ...]
    across: tuple[tuple[float, str], ...]
    up: tuple[tuple[float, str], ...]
    unit: str
    table: tuple[tuple[str, tuple[str, ...]], ...]


def chart(bench: Bench) -> Chart | None:
    """The eps curves of a bench, or None where no attack looked for the smallest change."""
    curves = bench.curves
    if not curves:
        return None
    threat = Threat.parse(bench.cell.threat)
    shown = _in_levels(threat)
    drawn = tuple(
        Drawn(name, number, _line(curve, threat.eps), _band(curve, threat.eps)) for number, (name, curve) in enumerate(curves.items())
    )
    radii = [threat.eps * k / 4 for k in range(5)]
    first = next(iter(curves.values()))
    table = tuple(
        (_radius(first[at][0], shown), tuple(percent(curve[at][1]) for curve in curves.values())) for at in range(0, len(first), 8)
    )
    return Chart(
        curves=drawn,
        across=tuple((_across(radius, threat.eps), _radius(radius, shown)) for radius in radii),
        up=tuple((_up(tick / 100), str(tick)) for tick in TICKS),
        unit=unit(threat),
        table=table,
    )


def unit(threat: Threat) -> str:
    """What the axis of radii says."""
    return f"{threat.norm.name} radius" + (" (in levels of 1/255)" if _in_levels(threat) else "")


def curves_png(bench: Bench) -> bytes:
    """The eps curves of a bench as a PNG; the same bytes for the same curves and the same matplotlib."""
    from matplotlib.figure import Figure

    threat = Threat.parse(bench.cell.threat)
    scale = 255.0 if _in_levels(threat) else 1.0
    figure = Figure(figsize=(6.4, 3.6), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for number, (name, curve) in enumerate(bench.curves.items()):
        radii = [radius * scale for radius, _ in curve]
        low, high = zip(*(share.interval for _, share in curve), strict=True)
        axes.plot(
            radii, [100 * share.value for _, share in curve], STYLES[number % len(STYLES)], color=f"C{number % 10}", label=_plain(name)
        )
        axes.fill_between(radii, [100 * end for end in low], [100 * end for end in high], color=f"C{number % 10}", alpha=0.15, linewidth=0)
    axes.set(
        xlabel=_plain(unit(threat)), ylabel="robust accuracy, %", ylim=(0, 100), xlim=(0, threat.eps * scale), title=_plain(bench.title)
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    return _png(figure)


def worst_png(bench: Bench) -> bytes:
    """Right before the attack and in the worst case, one row a defence, with 95 % intervals, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 1.2 + 0.45 * len(bench.entries)), dpi=150, layout="constrained")
    axes = figure.add_subplot()
    for place, entry in enumerate(bench.entries):
        for share, colour, up in ((entry.before, "C7", -0.13), (entry.worst.accuracy, "C0", 0.13)):
            low, high = share.interval
            axes.plot([100 * low, 100 * high], [place + up] * 2, color=colour, linewidth=2)
            axes.plot([100 * share.value], [place + up], "o", color=colour, markersize=5)
    axes.plot([], [], "o-", color="C7", label="before the attack")
    axes.plot([], [], "o-", color="C0", label="worst case")
    axes.set_yticks(range(len(bench.entries)), [_plain(name) for name in bench.names])
    axes.invert_yaxis()
    axes.set(xlabel="accuracy, % (95 % interval)", xlim=(0, 100), title=_plain(bench.title))
    axes.grid(axis="x", alpha=0.3)
    figure.legend(loc="outside lower center", ncols=2, fontsize="small")
    return _png(figure)


def _png(figure: object) -> bytes:
    held = io.BytesIO()
    figure.savefig(held, format="png", metadata={"Software": "forearm"})  # type: ignore[attr-defined]
    return held.getvalue()


def _plain(text: str) -> str:
    return text.replace("$", r"\$")  # matplotlib would read mathematics


def _in_levels(threat: Threat) -> bool:
    return threat.norm.name == "linf" and threat.eps <= 1.0


def _radius(radius: float, levels: bool) -> str:
    return f"{radius * 255:.3g}" if levels else f"{radius:.3g}"


def _across(radius: float, eps: float) -> float:
    return round(LEFT + (WIDTH - LEFT - RIGHT) * (radius / eps if eps else 0.0), 2)


def _up(value: float) -> float:
    return round(TOP + (HEIGHT - TOP - BOTTOM) * (1.0 - value), 2)


def _line(curve: Curve, eps: float) -> str:
    return " ".join(f"{_across(radius, eps)},{_up(share.value)}" for radius, share in curve)


def _band(curve: Curve, eps: float) -> str:
    low = [f"{_across(radius, eps)},{_up(share.interval[0])}" for radius, share in curve]
    high = [f"{_across(radius, eps)},{_up(share.interval[1])}" for radius, share in curve]
    return " ".join([*high, *reversed(low)])
