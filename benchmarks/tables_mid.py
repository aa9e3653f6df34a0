"""The tables of docs/results/mid.md."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rendering import markdown, of, result, share, signed, when_measured


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
    table = markdown(["net", "", "clean", "PGD-20", "AutoAttack", "mean of unknown", f"above `{d['control']}`, paired"], body)
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


TABLES: dict[str, Callable[[], str]] = {
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
}
