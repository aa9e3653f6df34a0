"""The tables of docs/results/mspd.md that `mspd_gain` and `mspd_table` measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rendering import NOT_YET, at, markdown, measured, of, result, share, signed

RELEASES = ("none", "s_fgsm", "s_pgd", "mspd", "mspd, given")


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


def paper(part: str) -> dict[str, Any]:
    """What `mspd_table` measured of one part; empty where it was not run."""
    found: dict[str, Any] = result("mspd_table")["details"].get(part, {}) if measured("mspd_table") else {}
    return found


TABLED = ("none", "s_fgsm", "s_pgd", "bilevel", "fast_preemption", "mspd")
MODES = ("decoupled", "coupled", "given")


def tabled(part: str, make: Callable[[dict[str, Any]], str]) -> Callable[[], str]:
    """A table of `mspd_table`, where that part was run."""
    return lambda: make(paper(part)) if paper(part) else NOT_YET.format(name="mspd_table")


def tabled_summary(found: dict[str, Any]) -> str:
    """What the strongest attack that has a mean says, in a sentence that its intervals make; what is not there."""
    means, lines = found["means"], []
    for way, releases in means["ways"].items():
        if way not in ("AutoAttack", "worst of all at this radius"):
            continue
        for other in ("none", "s_fgsm"):
            difference = at(releases, "mspd", "decoupled", f"above {other}")
            if difference:
                low, high = difference["interval"]
                verdict = "excludes zero" if low > 0 or high < 0 else "contains zero"
                lines.append(
                    f"- {way}, `mspd` above `{other}`, mean of {len(means['targets'])} robust targets that it never saw: {signed(difference)} points, "
                    f"n = {difference['n']}; the interval {verdict}."
                )
    for name, said in found["labels right"].items():
        who = {"decoupled": "The labeller", "coupled": "The backbone as its own labeller"}[name]
        lines.append(f"- {who} is right on {share(said)} % of the pictures (n = {said['n']}).")
    lines.append("- PSNR: " + ", ".join(f"`{name}` {size['value']:.1f} dB (n = {size['n']})" for name, size in found["psnr"].items()) + ".")
    if found["absent"]:
        lines.append(f"- Targets that were not there: {', '.join(found['absent'])}.")
    if found["not measured"]:
        lines.append(f"- The run was cut short: {len(found['not measured'])} kinds of cells are not (fully) measured; the JSON lists them.")
    return "\n".join(lines)


def tabled_means(found: dict[str, Any]) -> str:
    """Every attack on every release, decoupled labels, mean over the robust targets but the backbone."""
    body = []
    for way, releases in found["means"]["ways"].items():
        cells = [at(releases, name, "decoupled") or {} for name in TABLED]
        n = next((cell["robust"]["n"] for cell in cells if cell), None)
        mspd = cells[-1]
        body.append(
            [
                way,
                str(n),
                *(of(n, cell.get("robust")) for cell in cells),
                *(of(n, mspd.get(f"above {other}"), signed) for other in ("none", "s_fgsm")),
            ]
        )
    return markdown(["attack", "n", *TABLED, "mspd above none, paired", "mspd above s_fgsm, paired"], body)


def tabled_targets(found: dict[str, Any], ways: tuple[str, ...], kinds: tuple[str, ...]) -> str:
    """Each target under some attacks, decoupled labels."""
    body = []
    for way in ways:
        for name, row in found["targets"].items():
            cells = [at(row["attacks"], way, release, "decoupled") or {} for release in TABLED]
            if row["kind"] in kinds and any(cells):
                n = next(cell["robust"]["n"] for cell in cells if cell)
                body.append(
                    [
                        name,
                        row["kind"],
                        way,
                        str(n),
                        *(of(n, cell.get("robust")) for cell in cells),
                        of(n, cells[-1].get("above none"), signed),
                    ]
                )
    return markdown(["target", "kind", "attack", "n", *TABLED, "mspd above none, paired"], body)


def tabled_clean(found: dict[str, Any]) -> str:
    """Accuracy without an attack: what the labels write into the pictures."""
    body = []
    for name, row in found["targets"].items():
        bare = at(row["clean"], "none", "decoupled")
        if bare:
            shown = [at(row["clean"], release, mode) for release in ("s_fgsm", "mspd") for mode in MODES]
            body.append([name, row["kind"], str(bare["n"]), share(bare), *(of(bare["n"], cell) for cell in shown)])
    return markdown(["target", "kind", "n", "none", *(f"{release}, {mode}" for release in ("s_fgsm", "mspd") for mode in MODES)], body)


def tabled_labels(found: dict[str, Any]) -> str:
    """Label modes, mean over the robust targets but the backbone."""
    body = []
    for way, releases in found["means"]["ways"].items():
        for release in TABLED[1:]:
            cells = [at(releases, release, mode, "robust") for mode in MODES]
            if cells[0] and any(cells[1:]):
                n = cells[0]["n"]
                body.append([way, release, str(n), of(n, at(releases, "none", "decoupled", "robust")), *(of(n, cell) for cell in cells)])
    return markdown(["attack", "release", "n", "none", *MODES], body)


def tabled_split(found: dict[str, Any]) -> str:
    """The same pictures by whether the labeller is right."""
    body = []
    for way, releases in found["means"]["ways"].items():
        for release, modes in releases.items():
            for mode, cell in modes.items():
                groups = [cell.get(f"labeller {group}") or {} for group in ("right", "wrong")]
                if any(group.get("robust") for group in groups):
                    shown = [text for g in groups for text in (of(None, g.get("robust")), of(None, g.get("above none"), signed))]
                    body.append([way, release, mode if release != "none" else "", *shown])
    return markdown(["attack", "release", "labels", "labeller right", "above none", "labeller wrong", "above none"], body)


def tabled_budgets(found: dict[str, Any]) -> str:
    """PGD-50 with the attacker's ball around the release, twice as wide, and around the original."""
    ways = ("PGD-50", "PGD-50 at twice the radius", "PGD-50 around the original")
    body = []
    for name, row in found["targets"].items():
        if row["kind"] != "natural":
            cells = [at(row["attacks"], way, release, "decoupled", "robust") for way in ways for release in ("none", "mspd")]
            body.append([name, row["kind"], *(of(None, cell) for cell in cells[:5]), of(None, cells[5])])
    head = [
        f"{release}, {where}" for where in ("around the release", "twice as wide", "around the original") for release in ("none", "mspd")
    ]
    return markdown(["target", "kind", *head], body)


TABLES: dict[str, Callable[[], str]] = {
    "gain cifar10": lambda: gain("cifar10", "pgd20"),
    "gain cifar10 apgd": lambda: gain("cifar10", "apgd"),
    "gain photos": lambda: gain("photos", "pgd20"),
    "gain photos natural": lambda: gain("photos", "pgd20_natural"),
}
QUICK = ("FGSM", "PGD-50", "MI-FGSM, carried over")  # what natural targets are attacked with
DECISIVE = ("AutoAttack", "PGD-50")
for _part in ("cifar10", "photos"):
    TABLES |= {
        f"table {name} {_part}": tabled(_part, make)
        for name, make in {
            "summary": tabled_summary,
            "means": tabled_means,
            "targets": lambda found: tabled_targets(found, DECISIVE, ("backbone", "robust")),
            "others": lambda found: tabled_targets(
                found, tuple(way for way in found["ways"] if way not in DECISIVE), ("backbone", "robust")
            ),
            "clean": tabled_clean,
            "labels": tabled_labels,
            "split": tabled_split,
            "budgets": tabled_budgets,
            "natural": lambda found: tabled_targets(found, QUICK, ("natural",)),
        }.items()
    }
