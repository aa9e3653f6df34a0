"""Claim: the four lemmas behind MSPD, as far as they can be read, hold when they are probed.

The paper's lemmas 2 to 4 cannot be read; what is probed is what its abstract and figures say (each as a condition on the numbers):

1. If the input gradients of backbone and target agree, the change carries over: over targets, the rank correlation of gradient cosine (and of the share of
   equal signs) with the gain in PGD-20 accuracy is positive, p < .05 by permutation.
2. Forward epochs converge fast and overfit the backbone, backward ones are slow and general: losses after a forward and b backward epochs (rate .5, step
   .5 eps, N = 4, PGD-10 for the adversarial loss). F4 lowers the backbone's loss more than B4, and B4 carries a larger share of its drop to held-out targets.
3. The smoothing's variance falls as 1/N until signs clip: the slope of log variance over seeds against log N, for one forward epoch and for the release.
4. The error of reversion grows with the attacker's mismatch in seed, N, eps, label or backbone: none restores more than full knowledge, the error rises
   with the distance of the assumed eps on either side, and over surrogates with the disagreement of gradients.

Intervals are bootstraps over pictures (CIFAR-10's first test images, labeller's labels), p-values of rank correlations permutations of targets; there are few
targets. The claim's value counts the lemmas that hold. Needs the data sets in FOREARM_DATA; `mspd_cells.py` says how runs resume.

    OMP_NUM_THREADS=1 python benchmarks/mspd_lemmas.py [--examples 100] [--minutes 60]
"""

from __future__ import annotations

import argparse
import math
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from claim import record
from mspd_cells import BACKBONE, FIGURES, TARGETS, Cell, Stand, collected, missing, run
from mspd_probes import ALL, COPIES, EPOCHS, ROWS

DRAWS = 2000
Floats = NDArray[np.float64]
UNSEEN = tuple(name for name in TARGETS if name != BACKBONE)
LAST = EPOCHS[-1]


def joined(cells: list[Cell], *names: str) -> Any:
    """The lists under these names, one after another over the cells."""
    found: list[Any] = []
    for cell in cells:
        for name in names:
            cell = cell[name]
        found += cell
    return found


def ranks(values: Floats) -> Floats:
    """1 for the least; equal values share the mean of their places."""
    return np.array([(values < v).sum() + 0.5 * ((values == v).sum() + 1) for v in values])


def correlation(first: list[float], second: list[float]) -> dict[str, Any]:
    """Spearman's rank correlation, with the one-sided p-value of a positive one by permutation of the second; None where one does not vary."""
    a, b = (ranks(np.array(v, float)) for v in (first, second))
    a, b = a - a.mean(), b - b.mean()
    size = math.sqrt(float((a**2).sum() * (b**2).sum()))
    if size == 0.0:
        return {"value": None, "p": None, "n": len(a)}
    rho = float(a @ b) / size
    generator = np.random.default_rng(0)
    drawn = np.array([float(a @ generator.permutation(b)) / size for _ in range(10_000)])
    return {"value": rho, "p": float(((drawn >= rho - 1e-12).sum() + 1) / (len(drawn) + 1)), "n": len(a)}


def middle(each: Any) -> dict[str, Any]:
    """A mean over pictures, and where 95 % of its bootstrap draws lie."""
    values = np.array(each, float)
    draws = values[np.random.default_rng(0).integers(0, len(values), (DRAWS, len(values)))].mean(1)
    low, high = np.quantile(draws, (0.025, 0.975))
    return {"value": float(values.mean()), "interval": [float(low), float(high)], "n": len(values)}


def first_lemma(stand: Stand, cells: list[Cell]) -> dict[str, Any]:
    targets = {}
    for name, target in stand.targets.items():
        right = np.array([[pair[1] for pair in joined(cells, which, name)] for which in ("bare", "armed")], float)
        targets[name] = {
            "kind": target.kind,
            "cosine": float(np.mean(joined(cells, "cosine", name))),
            "signs": float(np.mean(joined(cells, "signs", name))),
            "gain": middle(right[1] - right[0]),
        }
    made: dict[str, Any] = {"targets": targets}
    for group, kinds in (("all targets", ("robust", "natural")), ("robust targets", ("robust",))):
        rows = [row for row in targets.values() if row["kind"] in kinds]
        made[group] = {f: correlation([row[f] for row in rows], [row["gain"]["value"] for row in rows]) for f in ("cosine", "signs")}
    return made | {"holds": all((c["p"] or 1.0) < 0.05 for c in made["all targets"].values())}


def second_lemma(cells: list[Cell]) -> dict[str, Any]:
    def loss(which: str, key: str, names: tuple[str, ...]) -> Floats:
        """A loss of every picture, the mean over nets."""
        return np.array([joined(cells, which, key, name) for name in names], float).mean(0)

    def drop(key: str, names: tuple[str, ...]) -> Floats:
        return loss("attacked", "0,0", names) - loss("attacked", key, names)

    grids = {
        f"{which}, {who}": {f"{a},{b}": float(loss(which, f"{a},{b}", names).mean()) for a in EPOCHS for b in EPOCHS}
        for which in ("plain", "attacked")
        for who, names in (("backbone", (BACKBONE,)), ("held out", UNSEEN))
    }
    forward, backward = f"{LAST},0", f"0,{LAST}"
    faster = middle(drop(forward, (BACKBONE,)) - drop(backward, (BACKBONE,)))
    drops = {key: (drop(key, UNSEEN), drop(key, (BACKBONE,))) for key in (forward, backward)}
    share = {key: float(unseen.mean() / own.mean()) for key, (unseen, own) in drops.items()}
    picked = np.random.default_rng(0).integers(0, len(drops[forward][0]), (DRAWS, len(drops[forward][0])))
    apart = [
        drops[backward][0][i].mean() / drops[backward][1][i].mean() - drops[forward][0][i].mean() / drops[forward][1][i].mean()
        for i in picked
    ]
    low, high = np.quantile(apart, (0.025, 0.975))
    general = {"value": share[backward] - share[forward], "interval": [float(low), float(high)], "n": faster["n"]}
    return {
        "loss": grids,
        "backbone drop, forward above backward": faster,
        "carried": {"forward": share[forward], "backward": share[backward]},
        "carried, backward above forward": general,
        "holds": faster["interval"][0] > 0 and general["interval"][0] > 0,
    }


def third_lemma(cells: list[Cell]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    across = np.log(np.array(COPIES, float))
    across -= across.mean()
    for name in ("forward epoch", "release"):
        each = np.array([joined(cells, "variance", f"{name}, {n}") for n in COPIES], float)  # copies x pictures
        picked = np.random.default_rng(0).integers(0, each.shape[1], (DRAWS, each.shape[1]))

        def slope(means: Floats) -> float:
            return float(across @ np.log(np.maximum(means, 1e-12)) / (across @ across))

        low, high = np.quantile([slope(each[:, i].mean(1)) for i in picked], (0.025, 0.975))
        made[name] = {
            "variance": dict(zip(map(str, COPIES), each.mean(1).tolist(), strict=True)),
            "slope": {"value": slope(each.mean(1)), "interval": [float(low), float(high)], "n": each.shape[1]},
        }
    return made | {"holds": bool(abs(made["forward epoch"]["slope"]["value"] + 1.0) < 0.1 and made["release"]["slope"]["value"] < 0.0)}


def fourth_lemma(stand: Stand, cells: list[Cell], agree: list[Cell]) -> dict[str, Any]:
    names = list(cells[0]["error"])
    each = {name: np.array(joined(cells, "error", name), float) for name in names}
    error = {name: middle(values) for name, values in each.items()}
    above = {name: middle(values - each["nothing"]) for name, values in each.items() if name != "nothing"}
    steps = {"below": ["nothing", "eps = 6", "eps = 4", "eps = 2"], "above": ["nothing", "eps = 10", "eps = 12", "eps = 16"]}
    rises = {side: all(error[a]["value"] < error[b]["value"] for a, b in pairwise(row)) for side, row in steps.items()}
    surrogates = [name for name in names if name in stand.targets and agree]
    disagreement = [1.0 - float(np.mean(joined(agree, "cosine", name))) for name in surrogates]
    rank = correlation(disagreement, [error[name]["value"] for name in surrogates])
    least = all(cell["value"] >= 0 for cell in above.values())
    return {
        "error, levels": error,
        "above full knowledge": above,
        "none below full knowledge": least,
        "rises with eps": rises,
        "surrogates, disagreement and error": rank | {"points": dict(zip(surrogates, disagreement, strict=True))},
        "holds": bool(least and all(rises.values()) and rank["p"] is not None and rank["p"] < 0.05),
    }


def summed(stand: Stand) -> dict[str, Any]:
    """Every lemma that has been probed."""
    cells = {name: [cell for _, cell in collected(stand, row)] for name, row in ROWS.items()}
    made: dict[str, Any] = {}
    if cells["agreement"]:
        made["1"] = first_lemma(stand, cells["agreement"])
    if cells["losses"]:
        made["2"] = second_lemma(cells["losses"])
    if cells["variance"]:
        made["3"] = third_lemma(cells["variance"])
    if cells["mismatch"] and cells["agreement"]:
        made["4"] = fourth_lemma(stand, cells["mismatch"], cells["agreement"])
    return {"lemmas": made, "absent": list(stand.absent), "not measured": missing(stand, ROWS)}


def draw(lemmas: dict[str, Any]) -> None:
    """`docs/pictures/mspd_lemmas.png`: a panel for each lemma."""
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(9.6, 7.2))
    one, two, three, four = axes.flat
    colours = {"backbone": "tab:gray", "robust": "tab:blue", "natural": "tab:orange"}
    for place, (name, row) in enumerate(lemmas["1"]["targets"].items()):
        gain = row["gain"]
        if row["kind"] != "backbone":
            ends = [[100 * (gain["value"] - gain["interval"][0])], [100 * (gain["interval"][1] - gain["value"])]]
            one.errorbar([row["cosine"]], [100 * gain["value"]], yerr=ends, fmt="o", ms=4, lw=1, capsize=2, color=colours[row["kind"]])
            one.annotate(
                name.replace("cifar10_", ""),
                (row["cosine"], 100 * gain["value"]),
                fontsize=7,
                xytext=(4, 4 if place % 2 else -9),
                textcoords="offset points",
            )
    one.margins(x=0.14)
    one.set(xlabel="cosine of input gradients with the backbone's", ylabel="gain, points of PGD-20 accuracy")
    one.set_title("1: agreement and gain, by target", fontsize=9)
    for who, colour in (("backbone", "tab:gray"), ("held out", "tab:blue")):
        grid = lemmas["2"]["loss"][f"attacked, {who}"]
        for row, style in (([f"{k},0" for k in EPOCHS], "-"), ([f"0,{k}" for k in EPOCHS], "--"), ([f"{k},{k}" for k in EPOCHS], ":")):
            kind = {"-": "forward", "--": "backward", ":": "as many of each"}[style]
            two.plot(EPOCHS, [grid[key] for key in row], style, marker="o", ms=3, color=colour, label=f"{who}, {kind}")
    two.set(xlabel="epochs (of each, where there are both)", ylabel="cross-entropy under PGD-10")
    two.set_title("2: forward and backward epochs", fontsize=9)
    bottom, top = two.get_ylim()
    two.set_ylim(bottom, top + 0.6 * (top - bottom))
    two.legend(fontsize=6.5, loc="upper right")
    for name, style in (("forward epoch", "-"), ("release", "--")):
        values = lemmas["3"][name]["variance"]
        three.loglog(
            [int(n) for n in values],
            list(values.values()),
            style,
            marker="o",
            ms=3,
            label=f"{name}, slope {lemmas['3'][name]['slope']['value']:.2f}",
        )
    three.set(xlabel="copies N", ylabel="variance over seeds, eps^2")
    three.set_xticks(COPIES, map(str, COPIES))
    three.minorticks_off()
    three.set_title("3: variance", fontsize=9)
    three.legend(fontsize=7)
    errors = lemmas["4"]["error, levels"]
    order = sorted(errors, key=lambda name: errors[name]["value"])
    value = [errors[name]["value"] for name in order]
    ends = [
        [v - errors[n]["interval"][0] for v, n in zip(value, order, strict=True)],
        [errors[n]["interval"][1] - v for v, n in zip(value, order, strict=True)],
    ]
    four.errorbar(value, range(len(order)), xerr=ends, fmt="o", ms=3, lw=1, capsize=2)
    four.set_yticks(range(len(order)), [name.replace("cifar10_", "") for name in order], fontsize=6.5)
    four.set(xlabel="mean error of the reverted picture, levels of 255")
    four.set_title("4: what the attacker has wrong", fontsize=9)
    for axis in axes.flat:
        axis.grid(lw=0.3)
    figure.tight_layout()
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / "mspd_lemmas.png", dpi=76)


def main() -> None:
    parser = argparse.ArgumentParser(description="MSPD's four lemmas, probed.")
    parser.add_argument("--examples", type=int, default=100)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many, between two units")
    given = parser.parse_args()
    stand = Stand.load("mspd_lemmas", given.examples, ALL)
    run(stand, ROWS, given.minutes)
    details = summed(stand)
    lemmas = details["lemmas"]
    if len(lemmas) < 4:
        print("no claim yet: too little is measured")
        return
    record(
        "mspd_lemmas",
        "the four lemmas behind MSPD, as far as they can be read, hold when they are probed",
        sum(lemma["holds"] for lemma in lemmas.values()),
        "of 4 lemmas hold",
        n=lemmas["1"]["targets"][BACKBONE]["gain"]["n"],
        at_least=4,
        details=details,
    )
    draw(lemmas)


if __name__ == "__main__":
    main()
