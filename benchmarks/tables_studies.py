"""The tables of docs/results/mspd.md that go beyond the paper's: ablations, reversion, purifiers, lemmas, the budget spent otherwise, speed, publishing."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

from rendering import gap_line, markdown, of, pictured, result, share, signed, when_measured


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
    """What publishing leaves of the gain, by defence and target."""
    details, body = result("survival")["details"], []
    for defense, part in details.items():
        for name, row in part["targets"].items():
            kept = [row[f"kept by {which}"] for which in ("plain", "survive")]
            shares = ["-" if k["robust"] is None else f"{k['robust']:.2f} ({k['interval'][0]:.2f} to {k['interval'][1]:.2f})" for k in kept]
            margins = [
                "-" if k["margin"] is None else f"{k['margin']:.2f} ({k['margin_interval'][0]:.2f} to {k['margin_interval'][1]:.2f})"
                for k in kept
            ]
            points = [f"{one['points']:+.1f} ({one['low']:+.1f} to {one['high']:+.1f})" for one in (row["gain"], row["cost"])]
            body.append([f"`{defense}`", name, str(row["n"]), *points, *shares, *margins])
    head = [
        "defence",
        "target",
        "n",
        "plain gain, points",
        "cost of `--survive`, points",
        "kept by plain",
        "kept by `--survive`",
        "by margin: plain",
        "`--survive`",
    ]
    chain = next(iter(details.values()))["chain"]
    return f"Photos through {chain}.\n\n{markdown(head, body)}"


TABLES: dict[str, Callable[[], str]] = {
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
}
