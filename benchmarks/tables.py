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
PAGES = ("README.md", "docs/results/mspd.md", "docs/results/gcm.md")
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


NOT_YET = "Not measured yet: `python benchmarks/{name}.py` makes this table."


def measured(name: str) -> bool:
    """Whether a benchmark's JSON is there."""
    return (ROOT / "benchmarks" / "results" / f"{name}.json").is_file()


def parts_of(name: str) -> list[str]:
    """Which parts of a benchmark were run."""
    return [part for part in ("cifar10", "photos") if measured(name) and part in result(name)["details"]]


def concealed(figure: str) -> str:
    """The published table of GCM on this project's models: AR ("ar") or robust accuracy ("robust") for who does not know it."""
    body = []
    for part in parts_of("gcm_table"):
        for model, row in result("gcm_table")["details"][part].items():
            for label, cells in row["published"].items():
                body.append([model, label, share(row["clean"]), *(share(cell[figure]) for cell in cells.values())])
    return markdown(["model", "", "clean", "FGSM Linf", "PGD L1", "PGD L2", "PGD Linf", "C&W L2"], body)


def knowing(part: str) -> str:
    """AR under each way to attack a concealed model."""
    if part not in parts_of("gcm_table"):
        return NOT_YET.format(name="gcm_table")
    body = []
    for model, row in result("gcm_table")["details"][part].items():
        n = row["worst"]["linf"]["difference"]["n"]
        for way, norms in row["knows"].items():
            shown = [norms.get(norm) for norm in ("l1", "l2", "linf")]
            body.append([f"{model} (n = {n})", way, *("-" if cell is None else share(cell["ar"]) for cell in shown)])
    return markdown(["concealed model", "attack", "L1", "L2", "Linf"], body)


def concealed_worst() -> str:
    """Worst cases in robust accuracy: of the bare model, of the concealed one by its own gradient alone, of the concealed one by all."""
    body = []
    for part in parts_of("gcm_table"):
        for model, row in result("gcm_table")["details"][part].items():
            for norm in ("l1", "l2", "linf"):
                w = row["worst"][norm]
                same = f"{w['verdicts that differ']} of {w['verdicts']}"
                body.append(
                    [model, norm, share(w["vanilla"]), share(w["GCM, its own gradient"]), share(w["GCM"]), signed(w["difference"]), same]
                )
    head = ["model", "norm", "bare", "GCM, by its own gradient", "GCM, by all", "GCM above bare, paired", "verdicts that differ"]
    return markdown(head, body)


def noise_controls() -> str:
    """AR through GCM beside that of noise of the same size on the bare model."""
    body = []
    for part in parts_of("gcm_table"):
        for model, row in result("gcm_table")["details"][part].items():
            for column, cell in row["controls"].items():
                body.append([model, column, share(cell["GCM"]["ar"]), share(cell["control"]["ar"]), signed(cell["difference"])])
    return markdown(["model", "attack", "through GCM", "noise on the bare model", "robust accuracy apart, paired"], body)


def to_and_fro() -> str:
    """How far 20 signed steps have come."""
    far = result("gcm_table")["details"]["steps"]["far"]
    shown = (1, 5, 10, 20)
    return markdown(["steps along", *map(str, shown)], [[name, *(f"{row[k - 1]:.2f}" for k in shown)] for name, row in far.items()])


def combinations() -> str:
    """MSPD and GCM together: robust accuracy in the worst case by what the attacker knows."""
    ways = ("knows nothing", "knows GCM alone", "knows all")
    body = []
    for model, row in result("together")["details"].items():
        for defense, made in row["defenses"].items():
            shown = ["-" if made[way] is None else share(made[way]) for way in ways]
            n = made["worst"]["n"]
            body.append(
                [f"{model} (n = {n})", row["kind"], defense, share(made["clean"]), *shown, share(made["worst"]), signed(made["above none"])]
            )
    return markdown(["model", "kind", "defence", "clean", *ways, "worst of all", "above none, paired"], body)


def ingredients() -> str:
    """The challenge's nets: clean, at the places of resize-and-pad, corrupted, and what FGSM regularisation is for."""
    r = result("challenge_ingredients")
    body = []
    for name, row in r["details"]["nets"].items():
        hit = row["attacked"]
        worth = row.get("above everything")
        above = "-" if name == "everything" or worth is None else signed(worth["PGD-20 linf:2/255, knows"])
        shown = [share(row[figure]) for figure in ("clean", "placed", "corrupted")]
        body.append([name, *shown, share(hit["PGD-20 linf:2/255, knows"]), above])
    head = [f"trained with (n = {r['n']})", "clean", "resized and padded", "corrupted", "PGD-20 2/255, knows", "above everything, paired"]
    return markdown(head, body)


def ingredients_attacked() -> str:
    """The challenge's nets behind GCM under FGSM and PGD-20, by who does not know it and by who does."""
    r = result("challenge_ingredients")
    shown = [
        (f"{attack} {eps}, {who}", f"{attack} linf:{eps}, {who}")
        for who in ("does not know", "knows")
        for eps in ("2/255", "8/255")
        for attack in ("FGSM", "PGD-20")
    ]
    body = [[name, *(share(row["attacked"][key]) for _, key in shown)] for name, row in r["details"]["nets"].items()]
    return markdown([f"trained with (n = {r['n']})", *(title for title, _ in shown)], body)


def paper(part: str) -> dict[str, Any]:
    """What `mspd_table` measured of one part; empty where it was not run."""
    found: dict[str, Any] = result("mspd_table")["details"].get(part, {}) if measured("mspd_table") else {}
    return found


TABLED = ("none", "s_fgsm", "s_pgd", "bilevel", "fast_preemption", "mspd")
MODES = ("decoupled", "coupled", "given")


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


def when_measured(name: str, make: Callable[[], str]) -> Callable[[], str]:
    """`make` where the benchmark was run, else a line that says that it was not."""
    return lambda: make() if measured(name) else NOT_YET.format(name=name)


TABLES: dict[str, Callable[[], str]] = {
    "models": models,
    "gain cifar10": lambda: gain("cifar10", "pgd20"),
    "gain cifar10 apgd": lambda: gain("cifar10", "apgd"),
    "gain photos": lambda: gain("photos", "pgd20"),
    "gain photos natural": lambda: gain("photos", "pgd20_natural"),
    "informed": informed,
    "claims": claims,
    "table summary cifar10": tabled("cifar10", tabled_summary),
    "table means cifar10": tabled("cifar10", tabled_means),
    "table targets cifar10": tabled("cifar10", lambda found: tabled_targets(found, ("AutoAttack", "PGD-50"), ("backbone", "robust"))),
    "table clean cifar10": tabled("cifar10", tabled_clean),
    "table labels cifar10": tabled("cifar10", tabled_labels),
    "table split cifar10": tabled("cifar10", tabled_split),
    "table budgets cifar10": tabled("cifar10", tabled_budgets),
    "table natural cifar10": tabled(
        "cifar10", lambda found: tabled_targets(found, ("FGSM", "PGD-50", "MI-FGSM, carried over"), ("natural",))
    ),
    "table summary photos": tabled("photos", tabled_summary),
    "table targets photos": tabled("photos", lambda found: tabled_targets(found, tuple(found["ways"]), ("backbone", "robust"))),
    "table clean photos": tabled("photos", tabled_clean),
    "table natural photos": tabled(
        "photos", lambda found: tabled_targets(found, ("FGSM", "PGD-50", "MI-FGSM, carried over"), ("natural",))
    ),
    "gcm ar": when_measured("gcm_table", lambda: concealed("ar")),
    "gcm robust": when_measured("gcm_table", lambda: concealed("robust")),
    "gcm knows cifar10": when_measured("gcm_table", lambda: knowing("cifar10")),
    "gcm knows photos": when_measured("gcm_table", lambda: knowing("photos")),
    "gcm worst": when_measured("gcm_table", concealed_worst),
    "gcm controls": when_measured("gcm_table", noise_controls),
    "gcm steps": when_measured("gcm_table", to_and_fro),
    "together": when_measured("together", combinations),
    "challenge": when_measured("challenge_ingredients", ingredients),
    "challenge attacked": when_measured("challenge_ingredients", ingredients_attacked),
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
