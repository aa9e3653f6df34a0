"""The tables of the README and of docs/results/mspd.md that `default_release` measured."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rendering import markdown, result, share, signed, when_measured

UNITS = {"cifar10": "CIFAR-10, 8/255", "photos": "photos, 4/255"}
SHOWN = ("none", "s_fgsm", "mspd", "ensemble")


def short() -> str:
    """The robust targets and the backbone, PGD-20: bare, MSPD, the default release, and what an attacker who knows everything leaves of that."""
    details, body = result("default_release")["details"], []
    for part, unit in UNITS.items():
        for name, row in details.get(part, {}).get("targets", {}).get("PGD-20", {}).items():
            if row["kind"] != "natural":
                cells = (
                    share(row[release]["robust"]) if release in row else "-" for release in ("none", "mspd", "ensemble", "ensemble, undone")
                )
                kind = "unseen" if row["kind"] == "robust" else "a backbone"
                body.append([unit, f"`{name}`, {kind}", str(row["none"]["robust"]["n"]), *cells])
    return markdown(["pictures", "target", "n", "bare", "published MSPD", "default", "default, attacker knows everything"], body)


def whole(part: str) -> Callable[[], str]:
    """All that was measured of one part: every target under every attack, and the means."""

    def made() -> str:
        d = result("default_release")["details"].get(part)
        if d is None:
            return "Not measured yet."
        body = [
            [name, row["kind"], attack, str(row["none"]["robust"]["n"]), *figures(row)]
            for attack, rows in d["targets"].items()
            for name, row in rows.items()
        ]
        head = ["target", "kind", "attack", "n", *SHOWN, "ensemble above mspd", "above s_fgsm", "mspd, undone", "ensemble, undone"]
        return "\n".join([markdown(head, body), "", *means(d), clean(d)])

    return made


def figures(row: dict[str, Any]) -> list[str]:
    """One target's cells."""
    ours = row.get("ensemble", {})
    return [
        *(share(row[name]["robust"]) if name in row else "-" for name in SHOWN),
        *(signed(ours[f"above {other}"]) if f"above {other}" in ours else "-" for other in ("mspd", "s_fgsm")),
        *(share(row[name]["robust"]) if name in row else "-" for name in ("mspd, undone", "ensemble, undone")),
    ]


def means(d: dict[str, Any]) -> list[str]:
    """A line for each attack: the mean over the unseen robust targets."""
    lines = []
    for attack, rows in d["means"].items():
        robust = ", ".join(f"`{name}` {100 * rows[name]['robust']:.1f} %" for name in rows)
        over = [(other, rows.get("ensemble", {}).get(f"above {other}")) for other in ("none", "mspd", "s_fgsm")]
        said = ", ".join(f"{signed(one)} above `{other}`" for other, one in over if one)
        lines.append(f"- {attack}, mean over the unseen robust targets: {robust}. The default: {said} (n = {over[0][1]['n']}).")  # type: ignore[index]
    return lines


def clean(d: dict[str, Any]) -> str:
    """PSNR, and how often the labeller is right."""
    sizes = ", ".join(f"`{name}` {value:.1f} dB" for name, value in d["psnr"].items())
    return f"- PSNR: {sizes}. The labeller is right on {share(d['labeller right'])} % of the pictures."


def bilevel() -> str:
    """The default beside bi-level's 2,100 gradients."""
    d = result("default_release")["details"].get("bilevel")
    if d is None:
        return "Not measured yet."
    shown = list(next(iter(d["targets"].values())))
    n = next(iter(d["targets"].values()))["none"]["n"]
    table = markdown(
        [f"target (n = {n})", *shown], [[name, *(share(row[release]) for release in shown)] for name, row in d["targets"].items()]
    )
    g = d["gradients"]
    return (
        f"{table}\n\nThe default above `bilevel`, mean of these targets, paired: {signed(d['ensemble above bilevel'])} points, with {g['ensemble']} "
        f"gradients instead of {g['bilevel']}; `bilevel` above bare pictures: {signed(d['bilevel above none'])}."
    )


def numbers() -> str:
    """The default with more backbones or fewer."""
    d = result("default_release")["details"].get("numbers")
    if d is None:
        return "Not measured yet."
    counts = list(d["above mspd"])
    n = d["above mspd"][counts[0]]["n"]
    body = [[name, *(share(row[m]) for m in ("mspd", *counts))] for name, row in d["targets"].items()]
    body.append(["mean, above `mspd`, paired", "-", *(signed(d["above mspd"][m]) for m in counts)])
    return markdown([f"target (n = {n})", "`mspd`, one backbone", *(f"{m} backbone{'s' if m != '1' else ''}" for m in counts)], body)


TABLES: dict[str, Callable[[], str]] = {
    "default": when_measured("default_release", short),
    "default cifar10": when_measured("default_release", whole("cifar10")),
    "default bilevel": when_measured("default_release", bilevel),
    "default numbers": when_measured("default_release", numbers),
    "default photos": when_measured("default_release", whole("photos")),
}
