"""The tables of the README and of docs/results, made from `benchmarks/results` and the cards of the embedded models; `--write` puts them there.

A table stands between `<!-- NAME -->` and `<!-- end NAME -->`. `tests/house/test_docs.py` checks that what stands there is what this makes.

    python benchmarks/tables.py --write
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from forearm.models.load import embedded, locate

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/results/mspd.md")
RELEASES = ("none", "s_fgsm", "s_pgd", "mspd", "mspd, given")


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
    return f"{100 * difference['value']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def gain(part: str, table: str) -> str:
    """Robust accuracy of every target on every release."""
    rows = result("mspd_gain")["details"][part][table]
    kept = [name for name in RELEASES if all(name in row for row in rows.values())]
    n = next(iter(rows.values()))["none"]["robust"]["n"]
    body = [
        [name, row["kind"], *(share(row[release]["robust"]) for release in kept), signed(row["mspd"]["above none"])]
        for name, row in rows.items()
    ]
    return markdown([f"target (n = {n})", "kind", *kept, "mspd above none, paired"], body)


def informed() -> str:
    """Robust accuracy where the attacker reverts the release first."""
    r = result("mspd_informed")
    shown = ("none", "mspd", "mspd, reverted")
    body = [[name, row["kind"], *(share(row[release]["robust"]) for release in shown)] for name, row in r["details"]["pgd20"].items()]
    return markdown([f"target (n = {r['n']})", "kind", "none", "mspd, attacker does not know", "mspd, attacker knows everything"], body)


def models() -> str:
    """The embedded models with what their cards say was measured."""
    body = []
    for name in embedded():
        card = locate(name).card
        measured = "; ".join(
            f"{m.what} {100 * m.value:.1f} % ({100 * m.interval[0]:.1f} to {100 * m.interval[1]:.1f}, n = {m.n})" for m in card.measured
        )
        body.append([f"`{name}`", f"`{card.arch}`", measured])
    return markdown(["model", "architecture", "measured"], body)


def claims() -> str:
    """Every claim, its value and whether it holds."""
    body = []
    for path in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        r = result(path.stem)
        bar = f"at least {r['at_least']:g}" if r["at_least"] is not None else f"at most {r['at_most']:g}"
        body.append([f"`{path.stem}`", r["claim"], f"{r['value']:.3g} {r['unit']}", bar, str(r["n"]), "yes" if r["holds"] else "**no**"])
    return markdown(["benchmark", "claim", "measured", "bar", "n", "holds"], body)


TABLES: dict[str, Callable[[], str]] = {
    "models": models,
    "gain cifar10": lambda: gain("cifar10", "pgd20"),
    "gain cifar10 apgd": lambda: gain("cifar10", "apgd"),
    "gain photos": lambda: gain("photos", "pgd20"),
    "gain photos natural": lambda: gain("photos", "pgd20_natural"),
    "informed": informed,
    "claims": claims,
}


def fill(text: str) -> str:
    """`text` with every marked table made anew."""
    for name, make in TABLES.items():
        block = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        if block.search(text):
            table = make()
            text = block.sub(lambda found, table=table: f"{found[1]}{table}\n{found[2]}", text)
    return text


if __name__ == "__main__":
    for page in PAGES:
        path = ROOT / page
        text = path.read_text()
        filled = fill(text)
        if "--write" in sys.argv:
            path.write_text(filled)
        print(f"{page}: {'as it should be' if text == filled else 'written' if '--write' in sys.argv else 'out of date'}")
