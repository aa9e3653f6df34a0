"""What the pages' tables are written with: a benchmark's JSON, shares with their intervals, Markdown, and what stands where nothing was measured."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def result(name: str) -> dict[str, Any]:
    """A benchmark's JSON."""
    loaded: dict[str, Any] = json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text())
    return loaded


def share(rate: dict[str, Any]) -> str:
    """A share in percent with its 95 % interval."""
    low, high = rate["interval"]
    return f"{100 * rate['value']:.1f} ({100 * low:.1f} to {100 * high:.1f})"


def signed(difference: dict[str, Any]) -> str:
    """A difference of shares in points with its 95 % interval."""
    low, high = difference["interval"]
    return f"{100 * difference['value']:+z.1f} ({100 * low:+z.1f} to {100 * high:+z.1f})"  # z: no minus before a zero


def markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


NOT_YET = "Not measured yet: `python benchmarks/{name}.py` makes this table."


def measured(name: str) -> bool:
    """Whether a benchmark's JSON is there."""
    return (ROOT / "benchmarks" / "results" / f"{name}.json").is_file()


def of(n: int | None, entry: dict[str, Any] | None, show: Callable[[dict[str, Any]], str] = share) -> str:
    """A figure, with its sample size where that is not `n`; "-" where it was not measured."""
    if entry is None:
        return "-"
    return show(entry) if entry["n"] == n else f"{show(entry)}, n = {entry['n']}"


def at(tree: dict[str, Any], *names: str) -> dict[str, Any] | None:
    """What lies under these names, or None."""
    for name in names:
        tree = tree.get(name) or {}
    return tree or None


def pictured(name: str, what: str) -> str:
    """The figure of a study of MSPD, which its benchmark draws."""
    return f"![{what}](../pictures/mspd_{name}.png)"


def gap_line(name: str) -> list[str]:
    """What a study of MSPD did not measure, as a line; none where all is there."""
    details = result(name)["details"]
    lines = [f"- Not there: {', '.join(details['absent'])}."] if details["absent"] else []
    return [*lines, *([f"- Not (fully) measured: {'; '.join(details['not measured'])}."] if details["not measured"] else [])]


def when_measured(name: str, make: Callable[[], str]) -> Callable[[], str]:
    """`make` where the benchmark was run, else a line that says that it was not."""
    return lambda: make() if measured(name) else NOT_YET.format(name=name)


def when_all_measured(names: Sequence[str], make: Callable[[], str]) -> Callable[[], str]:
    """`make` where all these benchmarks were run, else a line that says which was not."""
    return lambda: next((NOT_YET.format(name=name) for name in names if not measured(name)), None) or make()
