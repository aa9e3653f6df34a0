"""The tables of the README and of docs/results, made from `benchmarks/results` and the cards of the embedded models; `--write` puts them there.

A table stands between `<!-- NAME -->` and `<!-- end NAME -->`. `tests/house/test_docs.py` checks that what stands there is what this makes.

    python benchmarks/tables.py --write
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence

import tables_default
import tables_gcm
import tables_mid
import tables_mspd
import tables_scale
import tables_studies
from forearm.models.load import embedded, locate
from forearm.models.zoo import zoo
from rendering import ROOT, markdown, result, share

PAGES = ("README.md", "docs/results/mspd.md", "docs/results/gcm.md", "docs/results/mid.md", "docs/scale.md", "docs/service.md")


def informed() -> str:
    """Robust accuracy where the attacker reverts the release first."""
    r = result("mspd_informed")
    shown = ("none", "mspd", "mspd, reverted")
    body = [[name, row["kind"], *(share(row[release]["robust"]) for release in shown)] for name, row in r["details"]["pgd20"].items()]
    return markdown([f"target (n = {r['n']})", "kind", "none", "mspd, attacker does not know", "mspd, attacker knows everything"], body)


def models(names: Sequence[str]) -> str:
    """Models with what their cards say was measured."""
    body = []
    for name in names:
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
    "models": lambda: models(embedded()),
    "zoo": lambda: models(zoo()),
    "informed": informed,
    "claims": claims,
    **tables_default.TABLES,
    **tables_mspd.TABLES,
    **tables_studies.TABLES,
    **tables_gcm.TABLES,
    **tables_mid.TABLES,
    **tables_scale.TABLES,
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
