"""The tables of the README and of docs/results, made from `benchmarks/results` and the cards of the embedded models; `--write` puts them there.

A table stands between `<!-- NAME -->` and `<!-- end NAME -->`. `tests/house/test_docs.py` checks that what stands there is what this makes.

    python benchmarks/tables.py --write
"""

from __future__ import annotations

import json
import re
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from forearm.engines.ray import AHEAD
from forearm.jobs.remote import BLOCK
from forearm.models.load import embedded, locate
from forearm.models.zoo import zoo

ROOT = Path(__file__).parents[1]
PAGES = ("README.md", "docs/results/mspd.md", "docs/results/gcm.md", "docs/results/mid.md", "docs/scale.md", "docs/service.md")
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


def lowest(row: dict[str, Any], column: str, specs: list[str]) -> dict[str, Any] | None:
    """The share under the attack of these that does most, where all were run."""
    found = [row.get(column, {}).get(spec) for spec in specs]
    return None if not found or None in found else min((one for one in found if one), key=lambda one: float(one["value"]))


def mid_worst(name: str) -> str:
    """Nets of MID and its baselines: the worst case in each of the three columns."""
    d = result(name)["details"]
    known, unknown = d["known"], list(d["unknown"])
    linf = [spec for spec, threat in d["unknown"].items() if "linf" in threat]
    shown = (("gray", known), ("gray", linf), ("transfer", known + linf), ("white", known[:1]), ("white", known + unknown))
    body = []
    for net, row in d["nets"].items():
        cells = [lowest(row, column, specs) for column, specs in shown]
        n = row["clean"]["clean"]["n"]
        body.append(
            [
                f"`{net}`",
                d["kinds"][net],
                str(len(row["clean"]["clean"]["seeds"])),
                share(row["clean"]["clean"]),
                *(of(n, c) for c in cells),
            ]
        )
    head = [
        "net",
        "",
        "seeds",
        "clean",
        "gray, worst of the pool",
        "gray, worst unknown Linf",
        "transfer, worst Linf",
        f"white, {known[0]}",
        "white, worst",
    ]
    return markdown(head, body)


def mid_attacks(name: str, column: str) -> str:
    """Every attack of one column on every net, in percent."""
    d = result(name)["details"]
    nets = {net: row.get(column, {}) for net, row in d["nets"].items() if row.get(column)}
    body = []
    for spec, threat in (dict.fromkeys(d["known"], "") | d["unknown"]).items():
        cells = {net: row[spec] for net, row in nets.items() if spec in row}
        if cells:
            kind = f"{spec}, {threat}" if threat else f"{spec}, of the pool"
            shown = [f"{100 * cells[net]['value']:.1f}" if net in cells else "-" for net in nets]
            body.append([kind, str(next(iter(cells.values()))["n"]), *shown])
    return markdown(["attack", "n", *(f"`{net}`" for net in nets)], body)


def mid_pictures(name: str) -> str:
    """What the decoder makes again, against the clean picture."""
    made = result(name)["details"]["regenerated"]
    body = [
        [f"`{net}`", *(f"{held[f'psnr {kind}']:.1f} dB, {held[f'ssim {kind}']:.2f}" for kind in ("clean", "attacked"))]
        for net, held in made.items()
    ]
    table = markdown(["net", "from clean pictures (PSNR, SSIM)", "from attacked ones"], body)
    return f"{table}\n\n![pictures made again](../pictures/{name}.png)"


def mid_bars(name: str) -> str:
    """The bars of MID on MNIST, each with what was found."""
    r = result(name)
    d = r["details"]
    made = d["PSNR of regenerated pictures, `regenerate`"]
    white = {net: value for net, value in d["white box, mean of unknown attacks"].items() if value is not None}
    lines = [
        f"- Gray box, worst attack of the pool: {100 * r['value']:.1f} % (bar 95 %): {'met' if r['value'] >= 0.95 else 'missed'}.",
        f"- Gray box, worst unknown Linf attack: {100 * d['worst unknown Linf, gray box']:.1f} % (bar 90 %): "
        f"{'met' if d['worst unknown Linf, gray box'] >= 0.9 else 'missed'}.",
        f"- Pictures that `regenerate` makes again from attacked ones: {'not measured yet' if made is None else f'{made:.1f} dB'} (bar 20 dB): "
        f"{'met' if made is not None and made >= 20 else 'open' if made is None else 'missed'}.",
        "- White box, mean over the unknown attacks: " + ", ".join(f"`{net}` {100 * value:.1f} %" for net, value in white.items()) + ".",
    ]
    if "published" in d["CPU seconds"]:
        lines.append(
            f"- CPU time of `published` from scratch, target, teacher and pool included: {d['CPU seconds']['published'] / 60:.1f} minutes."
        )
    if d["missing"]:
        lines.append(f"- Not measured: {'; '.join(d['missing'])}.")
    return "\n".join(lines)


def mid_adaptive() -> str:
    """Variants of adaptive MID and adversarial training after the same CPU time, in the white box."""
    d = result("mid_adaptive")["details"]
    body = []
    for net, row in d["nets"].items():
        if net in d["mean of unknown"]:
            mean, apart = f"{100 * d['mean of unknown'][net]:.1f}", d["above the control"].get(net)
            pgd, aa = (next((c for spec, c in row["white"].items() if spec.startswith(kind)), None) for kind in ("pgd", "autoattack"))
            n = row["clean"]["clean"]["n"]
            body.append(
                [f"`{net}`", d["kinds"][net], share(row["clean"]["clean"]), of(n, pgd), of(n, aa), mean, signed(apart) if apart else "-"]
            )
    table = markdown(["net", "", "clean", "PGD-20", "AutoAttack", "mean of unknown", "above `pgd_at`, paired"], body)
    return f"{table}\n\n![accuracy while they train](../pictures/mid_adaptive.png)"


def mid_ablation() -> str:
    """MID with one part left out at a time."""
    d = result("mid_ablation")["details"]
    body = []
    for net, means in d["means"].items():
        if means["unknown"] is None:
            continue
        apart = d["published above"].get(net)
        made = d["regenerated"].get(f"{net}_0")
        white = next(iter(d["white"][net]["white"].values()), None)
        shown = [f"{100 * means[what]:.1f}" for what in ("known", "unknown")]
        body.append(
            [
                f"`{net}`",
                d["kinds"][net],
                *shown,
                signed(apart) if apart else "-",
                of(white["n"], white) if white else "-",
                f"{made['psnr attacked']:.1f} dB" if made else "-",
            ]
        )
    head = ["net", "", "gray, known", "gray, unknown", "`published` above it, paired", "white, PGD-20 at 0.1", "regenerated"]
    return markdown(head, body)


def mid_theory() -> str:
    """What each probe found, in a sentence, with its figure."""
    probes = result("mid_theory")["details"]["probes"]
    return "\n\n".join(f"{one['sentence']}\n\n![{name}](../pictures/mid_{name.lower()}.png)" for name, one in probes.items())


def pictured(name: str, what: str) -> str:
    """The figure of a study of MSPD, which its benchmark draws."""
    return f"![{what}](../pictures/mspd_{name}.png)"


def gap_line(name: str) -> list[str]:
    """What a study of MSPD did not measure, as a line; none where all is there."""
    details = result(name)["details"]
    lines = [f"- Not there: {', '.join(details['absent'])}."] if details["absent"] else []
    return [*lines, *([f"- Not (fully) measured: {'; '.join(details['not measured'])}."] if details["not measured"] else [])]


def mspd_ablation() -> str:
    """MSPD with one thing changed at a time, and the best setting that could be MSPD's."""
    r = result("mspd_ablation")
    n = r["details"]["settings"]["none"]["held out"]["robust"]["n"]
    body = []
    for name, row in r["details"]["settings"].items():
        held = row["held out"]
        shown = [of(n, row["targets"]["cifar10_backbone"]["robust"]), of(n, held["robust"])]
        apart = [of(n, held.get(f"above {other}"), signed) for other in ("none", "mspd")]
        size = "-" if name == "none" else f"{row['psnr']:.1f}"
        body.append(["**published**" if name == "mspd" else name, row["study"], str(row["gradients"]), size, *shown, *apart])
    head = [
        f"setting (n = {n})",
        "changed",
        "gradients",
        "PSNR",
        "backbone",
        "held-out mean",
        "above none, paired",
        "above published, paired",
    ]
    low, high = r["interval"]
    best = (
        f"- The setting of equal eps and backbone with the highest lower bound is `{r['details']['best']}`: {low:+.1f} to {high:+.1f} points beside the "
        f"published one, n = {r['n']}; the interval {'lies above zero' if low > 0 else 'contains zero' if high > 0 else 'lies below zero'}."
    )
    return "\n".join(
        [
            pictured("ablation", "Robust accuracy above the bare picture for each setting"),
            "",
            markdown(head, body),
            "",
            best,
            *gap_line("mspd_ablation"),
        ]
    )


def mspd_reversion() -> str:
    """What attackers who know more or less make of a release."""
    rows = result("mspd_reversion")["details"]["attackers"]
    n = rows["none"]["held out"]["robust"]["n"]
    alike = ", the bare picture alike"
    body = []
    for name, row in rows.items():
        if name.endswith(alike):
            continue
        back, held = row["targets"]["cifar10_backbone"], row["held out"]
        near = [f"{row['levels']:.1f}", f"{100 * row['restored']:.0f}"] if "levels" in row else ["-", "-"]
        shown = [of(n, back["robust"]), of(n, back.get("above none"), signed), of(n, held["robust"]), of(n, held.get("above none"), signed)]
        title = {"none": "undefended picture", "mspd": "does not know"}.get(name, name)
        body.append([title, *near, of(n, back["clean"]), *shown, of(n, held.get(f"above {name}{alike}"), signed)])
    head = [
        f"attacker (n = {n})", "levels off", "restored, %", "clean, backbone", "backbone", "above undefended", "held-out mean", "above undefended",
        "held out, above the undefended treated alike",
    ]  # fmt: skip
    return "\n".join([pictured("reversion", "Robust accuracy above the undefended picture for each attacker"), "", markdown(head, body)])


def mspd_law() -> str:
    """Whether a release is ever worse off than the undefended picture, in sentences that the numbers make."""
    found = result("mspd_reversion")["details"]["law"]
    bound, least = found["least bound"], found["least value"]
    broken = found["wholly below"]
    lines = [
        f"- Of {found['cells']} cells (attackers x targets), {found['wholly above']} lie wholly above zero, {len(found['below'])} have a mean below zero, "
        f"{len(broken)} lie wholly below it{': ' + '; '.join(broken) if broken else ''}.",
        f"- The lowest mean: {signed(least)} points ({least['attacker']}; {least['target']}). The lowest bound: {100 * bound['interval'][0]:+.1f} "
        f"({bound['attacker']}; {bound['target']}).",
        f"- Means below that of the undefended picture treated alike: {'; '.join(found['below the bare picture treated alike']) or 'none'}.",
    ]
    return "\n".join([*lines, *gap_line("mspd_reversion")])


def mspd_purifiers() -> str:
    """Bare and armed pictures through each channel, and what is left of the gain."""
    rows = result("mspd_purifiers")["details"]["channels"]
    n = rows[""]["mspd"]["held out"]["robust"]["n"]
    body = []
    for name, row in rows.items():
        kept = row.get("kept", {})
        armed, bare = row["mspd"]["held out"], row["none"]["held out"]
        left = [of(n, kept.get(who)) for who in ("held out", "backbone")]
        body.append([name or "none", of(n, bare["robust"]), of(n, armed["robust"]), of(n, armed["above none"], signed), *left])
    head = [
        f"channel (n = {n})",
        "bare, held-out mean",
        "mspd, held-out mean",
        "above bare, paired",
        "gain left, held out, %",
        "gain left, backbone, %",
    ]
    return "\n".join(
        [
            pictured("purifiers", "Robust accuracy of bare and armed pictures through each channel"),
            "",
            markdown(head, body),
            *([""] if gap_line("mspd_purifiers") else []),
            *gap_line("mspd_purifiers"),
        ]
    )


def mspd_lemmas() -> str:
    """What each probe says, in sentences that the numbers make."""
    found = result("mspd_lemmas")["details"]["lemmas"]
    verdict = {True: "holds", False: "does not hold as stated"}

    def ranked(cell: dict[str, Any]) -> str:
        return "-" if cell["value"] is None else f"{cell['value']:+.2f} (p = {cell['p']:.3f}, {cell['n']} targets)"

    def number(cell: dict[str, Any]) -> str:
        return f"{cell['value']:.2f} ({cell['interval'][0]:.2f} to {cell['interval'][1]:.2f})"

    one, two, three, four = (found[key] for key in "1234")
    error, above = four["error, levels"], four["above full knowledge"]
    low = min(above, key=lambda name: above[name]["value"])
    everywhere, robust = ((one[group]["cosine"], one[group]["signs"]) for group in ("all targets", "robust targets"))
    faster, carried = number(two["backbone drop, forward above backward"]), two["carried"]
    general = number(two["carried, backward above forward"])
    slopes = [number(three[name]["slope"]) for name in ("forward epoch", "release")]
    rises = ["yes" if four["rises with eps"][side] else "no" for side in ("below", "above")]
    lines = [
        f"1. Agreement of gradients carries the change over: **{verdict[one['holds']]}**.",
        f"   Rank correlation with the gain: cosine {ranked(everywhere[0])}, equal signs {ranked(everywhere[1])};",
        f"   over robust targets alone {ranked(robust[0])} and {ranked(robust[1])}.",
        f"2. Forward is fast and overfits, backward is slow and general: **{verdict[two['holds']]}**.",
        f"   Four forward epochs lower the backbone's loss under attack by {faster} more than four backward ones;",
        f"   held-out targets get {100 * carried['forward']:.0f} % of the forward drop and {100 * carried['backward']:.0f} % of the backward one",
        f"   (difference of the two shares {general}).",
        f"3. Variance falls as 1/N until signs clip: **{verdict[three['holds']]}**.",
        f"   Slope of log variance against log N: {slopes[0]} after the forward epoch, {slopes[1]} for the release.",
        f"4. Reversion's error grows with mismatch: **{verdict[four['holds']]}**.",
        f"   Full knowledge leaves {number(error['nothing'])} levels, no reversion {number(error['not reverted'])};",
        f"   the smallest excess over full knowledge is {number(above[low])} ({low});",
        f"   over surrogates, disagreement of gradients and error: {ranked(four['surrogates, disagreement and error'])};",
        f"   rises as the assumed eps falls below 8/255: {rises[0]}, above it: {rises[1]}.",
    ]
    return "\n".join([pictured("lemmas", "A panel for each lemma"), "", *lines, *gap_line("mspd_lemmas")])


def instant() -> str:
    """One pass beside MSPD and one gradient: robust accuracy of every target, what is kept, and time."""
    r = result("instant")
    d = r["details"]
    shown = ("none", "s_fgsm", "mspd", "instant", "instant, own")
    body = [[name, row["kind"], *(share(row[release]["robust"]) for release in shown)] for name, row in d["targets"].items()]
    body.append(["mean of the unseen", "", *(f"{d['mean robust percent, unseen'][release]:.1f}" for release in shown)])
    kept, spent = d["kept of MSPD's gain, percent"], {name: row["processor"] for name, row in d["seconds a picture"].items()}
    lines = [
        f"- `{name}`: {kept[name]['value']:.0f} % of MSPD's mean gain on unseen targets ({kept[name]['interval'][0]:.0f} to "
        f"{kept[name]['interval'][1]:.0f}), {spent['mspd'] / spent[name]:.0f} times as fast in processor time ({1000 * spent[name]:.1f} ms a "
        f"picture, MSPD {1000 * spent['mspd']:.0f} ms, the labeller's pass not counted)."
        for name in ("s_fgsm", "instant", "instant, own")
    ]
    return "\n".join([markdown([f"target (n = {r['n']})", "kind", *shown], body), "", *lines])


def speed() -> str:
    """Milliseconds a picture against batch size, beside the published loop and the arithmetic floor."""
    d = result("mspd_speed")["details"]
    body = []
    for part in ("cifar10", "photos"):
        for kind in ("bf16", "fp32"):
            for batch, row in d.get(part, {}).get(kind, {}).get("batches", {}).items():
                own, floor = f"{row['milliseconds']:.0f}", f"{d[part][kind]['floor, milliseconds']:.0f}"
                times = f"{row['times as fast as the loop']:.1f}"
                body.append(
                    [part, kind, batch, f"{d[part]['plain']['milliseconds']:.0f}", own, times, floor, f"{row['times the floor']:.1f}"]
                )
    head = ["pictures", "numbers", "batch", "published loop, ms", "shipped, ms", "times as fast", "floor, ms", "times the floor"]
    same = d["robust percent"]
    said = f"PGD-20 accuracy of the backbone on both sides' releases: {same['plain']:.1f} and {same['shipped']:.1f} %"
    return f"{markdown(head, body)}\n\n{said}; {100 * same['same pixels']:.1f} % of the pixels are equal."


def plus() -> str:
    """Every way to spend the budget, on the mean of the reported robust targets."""
    r = result("mspd_plus")
    d, body = r["details"], []
    means = {attack: d[attack]["means"]["reported, robust"] for attack in ("pgd20", "apgd")}
    targets = [name for name, row in d["pgd20"]["targets"].items() if (row["half"], row["kind"]) == ("reported", "robust")]
    for name in means["pgd20"]:
        rows = [d["pgd20"]["targets"][target][name] for target in targets]
        robust = sum(row["robust"]["value"] for row in rows) / len(rows)
        over = [signed(means[attack][name][f"above {other}"]) if name != other else "-" for attack in means for other in ("mspd", "s_fgsm")]
        body.append([f"`{name}`", f"{statistics.mean(row['gradients'] for row in rows):.0f}", f"{100 * robust:.1f}", *over])
    n = {attack: next(iter(next(iter(found.values())).values()))["n"] for attack, found in means.items()}
    head = [
        "release",
        "gradients",
        f"PGD-20 (n = {n['pgd20']})",
        "above mspd",
        "above s_fgsm",
        f"APGD (n = {n['apgd']}): above mspd",
        "above s_fgsm",
    ]
    return f"Mean of {', '.join(f'`{target}`' for target in targets)}.\n\n{markdown(head, body)}"


def beside_bilevel() -> str:
    """The cheap releases beside bi-level's 2,100 gradients."""
    d = result("mspd_plus")["details"]["bilevel"]
    shown = ("none", "mspd", "polish", "looks, all", "bilevel")
    n = next(iter(d.values()))["none"]["robust"]["n"]
    body = [[target, *(share(row[name]["robust"]) for name in shown)] for target, row in d.items()]
    gradients = ["gradients", *(f"{statistics.mean(row[name]['gradients'] for row in d.values()):.0f}" for name in shown)]
    return markdown([f"target (n = {n})", *shown], [gradients, *body])


def survived() -> str:
    """What publishing leaves of the gain, target by target."""
    r = result("survival")
    body = []
    for name, row in r["details"]["targets"].items():
        gain, cost = row["gain"], row["cost"]
        kept = [row[f"kept by {which}"] for which in ("plain", "survive")]
        shares = ["-" if k["robust"] is None else f"{k['robust']:.2f} ({k['interval'][0]:.2f} to {k['interval'][1]:.2f})" for k in kept]
        margins = [
            "-" if k["margin"] is None else f"{k['margin']:.2f} ({k['margin_interval'][0]:.2f} to {k['margin_interval'][1]:.2f})"
            for k in kept
        ]
        points = [f"{one['points']:+.1f} ({one['low']:+.1f} to {one['high']:+.1f})" for one in (gain, cost)]
        body.append([name, *points, *shares, *margins])
    head = [
        "target",
        "plain gain, points",
        "cost of `--survive`, points",
        "kept by plain",
        "kept by `--survive`",
        "by margin: plain",
        "`--survive`",
    ]
    return f"n = {r['n']} photos; chain: {r['details']['chain']}.\n\n{markdown(head, body)}"


def when_measured(name: str, make: Callable[[], str]) -> Callable[[], str]:
    """`make` where the benchmark was run, else a line that says that it was not."""
    return lambda: make() if measured(name) else NOT_YET.format(name=name)


def when_all_measured(names: Sequence[str], make: Callable[[], str]) -> Callable[[], str]:
    """`make` where all these benchmarks were run, else a line that says which was not."""
    return lambda: next((NOT_YET.format(name=name) for name in names if not measured(name)), None) or make()


PLANNED = 100_000_000  # pictures
DAYS = 30
CORES = 32  # of a machine
PRICE = 0.04  # US dollars for a core and an hour; a price of your own goes here
PART = 250_000  # pictures of one run: a shard, or a folder
HELD = AHEAD * BLOCK  # pictures with a Ray worker at a time


def needs() -> dict[str, float]:
    """Processor seconds of one core for one picture, of each kind of job that was measured, with Ray's overhead."""
    folder, small = result("protect_folder"), result("instant")["details"]["seconds a picture"]
    label = small["labeller"]["processor"]
    found = {
        "photos of 0.2 to 12 megapixels, `mspd`": folder["details"]["seconds"] * folder["machine"]["threads"] / folder["n"],
        "32 pixels, `mspd`": small["mspd"]["processor"] + label,
        "32 pixels, `instant`": small["instant"]["processor"] + label,
    }
    over = max(0.0, result("ray_overhead")["details"]["percent_longer_once_started"]) / 100
    return {name: seconds * (1 + over) for name, seconds in found.items()}


def plan() -> str:
    """What 100 million pictures need."""
    body = []
    for name, seconds in needs().items():
        hours = PLANNED * seconds / 3600
        cores = hours / (24 * DAYS)
        body.append([name, f"{seconds:.2g}", f"{hours:,.0f}", f"{cores:,.1f}", f"{cores / CORES:.1f}", f"{hours * PRICE:,.0f} USD"])
    head = [
        "pictures",
        "core-seconds each",
        "core-hours",
        f"cores for {DAYS} days",
        f"machines of {CORES} cores",
        f"at {PRICE:g} USD a core-hour",
    ]
    return markdown(head, body)


def drivers() -> str:
    """What the one process of a run that plans, journals and writes is good for."""
    d = result("ray_driver")["details"]
    body = [
        [
            f"{1 / d['seconds_a_photo']:,.0f} pictures a second",
            "planned, hashed, journalled and written by one run, whatever its workers do",
        ],
        [f"{PLANNED * d['seconds_a_photo'] / 86400:.1f} days", "of that for 100 million pictures in one run; parts run side by side"],
        *([f"workers: {seconds / d['seconds_a_photo']:,.0f}", f"that one run keeps busy with {name}"] for name, seconds in needs().items()),
        [
            f"{PLANNED * d['memory_a_name'] / 2**30:,.0f} GiB",
            "to list 100 million names at once, which every shard of one folder does: too much",
        ],
        [f"{PLANNED * d['seconds_a_name'] / 3600:.1f} hours", "to list them"],
        [f"{PART * d['memory_a_photo'] / 2**30:.1f} GiB", f"for a run of {PART:,} pictures: their names and what the journal says of them"],
        [
            f"{PART * d['seconds_a_photo_that_is_done'] / 60:.0f} minutes",
            f"for a run of {PART:,} that was killed at its end to find them all done",
        ],
    ]
    return markdown(["measured", "what"], body)


def losses() -> str:
    """What the loss of a worker, of a machine and of a driver costs: work that is done twice."""
    d, body = result("ray_driver")["details"], []
    for name, seconds in needs().items():
        worker = HELD * seconds
        again = d["seconds_a_photo_that_is_done"] / seconds
        body.append([name, f"{worker:,.1f} s", f"{100 * worker / 86400:.2g} %", f"{CORES * worker / 60:,.1f} min", f"{100 * again:.2g} %"])
    head = ["pictures", "a worker lost, at most", "of all work, if each core is lost once a day", f"a machine of {CORES} cores lost"]
    return markdown([*head, "a run killed at its end, of its work"], body)


def busy(r: dict[str, Any]) -> str:
    """A sentence where other work was going on while something was measured."""
    load, cores = r["machine"]["load_at_end"], r["machine"]["cores"]
    return (
        f" The machine was busy with other work meanwhile (load {load:.1f} on {cores} cores), so take the rounds' spread seriously."
        if load > 2 * cores
        else ""
    )


def load() -> str:
    """The service's throughput and latency by clients, beside its engine's."""
    r = result("service_load")
    engine, (low, high) = statistics.median(r["details"]["engine_per_second"]), r["interval"]
    said = (
        f"With 16 clients the service arms {r['value']:.2f} times as many photos a second as its engine alone (median of rounds; least {low:.2f}, "
        f"greatest {high:.2f}; n = {r['n']}); the engine alone arms {engine:.2f} a second on that machine. The bar of {r['at_least']:g} is "
        f"{'met' if r['holds'] else '**missed**'}.{busy(r)}"
    )
    body = [
        [clients, f"{row['per_second']:.2f}", f"{row['p50']:.2f} s", f"{row['p99']:.2f} s", str(row["n"])]
        for clients, row in r["details"]["by_clients"].items()
    ]
    return f"{said}\n\n{markdown(['clients', 'photos a second', 'median', '99th percentile (below n = 100: the greatest)', 'n'], body)}"


def hostile() -> str:
    """How the service answered requests that no honest client sends."""
    r = result("hostile_requests")
    d = r["details"]
    half, end = d["held"][2], d["held"][-1]
    said = (
        f"{r['n']:,} requests, {r['value']} answers that are a fault or no whole problem, {'**a crash**' if d['crashed'] else 'no crash'}. Half "
        f"way and at the end: {half['bytes'] / 2**20:,.0f} and {end['bytes'] / 2**20:,.0f} MiB with the decoders, {half['files']} and "
        f"{end['files']} open files, {half['threads']} and {end['threads']} threads. The claim {'holds' if r['holds'] else '**does not hold**'}."
    )
    return f"{said}\n\n{markdown(['status', 'answers'], [[status, f'{count:,}'] for status, count in d['statuses'].items()])}"


TABLES: dict[str, Callable[[], str]] = {
    "models": lambda: models(embedded()),
    "zoo": lambda: models(zoo()),
    "gain cifar10": lambda: gain("cifar10", "pgd20"),
    "gain cifar10 apgd": lambda: gain("cifar10", "apgd"),
    "gain photos": lambda: gain("photos", "pgd20"),
    "gain photos natural": lambda: gain("photos", "pgd20_natural"),
    "informed": informed,
    "claims": claims,
    "instant": when_measured("instant", instant),
    "speed": when_measured("mspd_speed", speed),
    "plus": when_measured("mspd_plus", plus),
    "bilevel": when_measured("mspd_plus", beside_bilevel),
    "survival": when_measured("survival", survived),
    "ablation": when_measured("mspd_ablation", mspd_ablation),
    "reversion": when_measured("mspd_reversion", mspd_reversion),
    "reversion law": when_measured("mspd_reversion", mspd_law),
    "purifiers": when_measured("mspd_purifiers", mspd_purifiers),
    "lemmas": when_measured("mspd_lemmas", mspd_lemmas),
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
    "mid bars": when_measured("mid_mnist", lambda: mid_bars("mid_mnist")),
    "mid mnist": when_measured("mid_mnist", lambda: mid_worst("mid_mnist")),
    "mid mnist gray": when_measured("mid_mnist", lambda: mid_attacks("mid_mnist", "gray")),
    "mid mnist transfer": when_measured("mid_mnist", lambda: mid_attacks("mid_mnist", "transfer")),
    "mid mnist white": when_measured("mid_mnist", lambda: mid_attacks("mid_mnist", "white")),
    "mid pictures": when_measured("mid_mnist", lambda: mid_pictures("mid_mnist")),
    "mid cifar10": when_measured("mid_cifar10", lambda: mid_worst("mid_cifar10")),
    "mid cifar10 gray": when_measured("mid_cifar10", lambda: mid_attacks("mid_cifar10", "gray")),
    "mid cifar10 pictures": when_measured("mid_cifar10", lambda: mid_pictures("mid_cifar10")),
    "mid cifar10 white": when_measured("mid_cifar10", lambda: mid_attacks("mid_cifar10", "white")),
    "mid adaptive": when_measured("mid_adaptive", mid_adaptive),
    "mid ablation": when_measured("mid_ablation", mid_ablation),
    "mid theory": when_measured("mid_theory", mid_theory),
    "challenge": when_measured("challenge_ingredients", ingredients),
    "challenge attacked": when_measured("challenge_ingredients", ingredients_attacked),
    "scale plan": when_all_measured(("protect_folder", "instant", "ray_overhead"), plan),
    "scale drivers": when_all_measured(("protect_folder", "instant", "ray_overhead", "ray_driver"), drivers),
    "scale losses": when_all_measured(("protect_folder", "instant", "ray_overhead", "ray_driver"), losses),
    "service load": when_measured("service_load", load),
    "hostile requests": when_measured("hostile_requests", hostile),
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
