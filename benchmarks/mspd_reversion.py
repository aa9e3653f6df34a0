"""Claim: whatever an attacker knows of MSPD, and whatever he does to a release before his attack, it is never worse off than the undefended picture.

He knows everything, or not the seed, or not N, or not eps, or not the backbone (surrogates), or only that MSPD was used. He reverts the
release (Preemptive Reversion) and attacks what he has; or purifies it (JPEG 75, median, Gaussian) and attacks; or takes off the change with a net that
learned to (`mspd_remover.py`), or the change that the package's own instant network would make. His ball of 8/255 lies around what he has made, so undoing
costs him nothing; once, for the attacker who knows everything, it is counted from the release, and the plain attack on the release is his too. PGD-20 on
CIFAR-10's first test images, labels of the labeller, judged against the true ones. Every cell is compared with the undefended picture under the same
attack, picture by picture.

Undoing by itself does harm too (a blur costs accuracy, and a reversion moves a bare picture away from its label, beyond what a ball of 8/255 allows): for
some attackers the same is done to the bare picture, and the release is compared with that as well.

The claim's value is the least lower bound of the differences to the undefended picture over all attackers and targets: the law holds as it stands only if even
that is not below zero. Beside it: which cells lie wholly below zero, where the law is broken. Needs the data sets in FOREARM_DATA; `mspd_cells.py` says
how runs resume.

    OMP_NUM_THREADS=1 python benchmarks/mspd_reversion.py [--examples 150] [--minutes 60]
"""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

import forearm
from claim import record
from forearm.core.channel import CHANNELS
from forearm.core.noise import Noise
from forearm.core.precision import verdict
from forearm.core.quantize import levels, to_8bit
from forearm.core.threat import Threat
from forearm.defenses.preemptive.instant import instant
from forearm.defenses.preemptive.mcgs import mcgs
from forearm.defenses.preemptive.reversion import revert
from forearm.models.instant import load_writer
from forearm.registry import bind
from mspd_cells import ATTACK, BACKBONE, FIGURES, THREAT, Cell, Row, Stand, collected, compared, missing, run, verdicts_of
from mspd_remover import COUNT, EPOCHS, learned


@dataclass(frozen=True, slots=True)
class Guess:
    """What the attacker takes for the defender's settings; they are seed 0, 20 copies, 8/255, and the shipped backbone."""

    backbone: str = BACKBONE
    seed: int = 0
    copies: int = 20
    eps: int = 8

    def undo(self, stand: Stand, start: int, release: str = "mspd") -> Tensor:
        """The releases of a unit, reverted by these settings and rounded to 8 bits."""
        released, threat = stand.release(release, start), Threat.parse(f"linf:{self.eps}/255")
        protector, noise = partial(mcgs, copies=self.copies), Noise(self.seed, stand.ids(start))
        return to_8bit(revert(stand.sources[self.backbone].twin, released, protector=protector, threat=threat, noise=noise))


GUESSES = {
    "reverts, knows everything": Guess(),
    "reverts, not the seed": Guess(seed=1),
    "reverts, not N (takes 5)": Guess(copies=5),
    "reverts, not eps (takes 4/255)": Guess(eps=4),
    "reverts, not eps (takes 12/255)": Guess(eps=12),
    "reverts, not the backbone (resnet2b)": Guess("resnet2b"),
    "reverts, not the backbone (cifar10_preact)": Guess("cifar10_preact"),
    "reverts, not the backbone (cifar10_wide)": Guess("cifar10_wide"),
    "reverts, only that it is MSPD (cifar10_preact, other seed, N = 10)": Guess("cifar10_preact", 1, 10),
}
PURIFIERS = {"JPEG 75": "jpeg(quality=75)", "median 3 x 3": "median", "Gaussian blur": "gaussian(sigma=1.0)"}
COUNTED = "reverts, knows everything; counted from the release"
PAIRS = {"learned remover, the backbone's pairs": BACKBONE, "learned remover, a surrogate's pairs (resnet2b)": "resnet2b"}
OWN = "takes the instant network's change off"
ALIKE = ", the bare picture alike"  # the same done to a picture that was never armed: what undoing does by itself


def cell_of(stand: Stand, start: int, shown: Tensor) -> Cell:
    """The verdicts on pictures that the attacker made, and how far these are from the originals: mean |difference| in levels, share restored."""
    apart = (levels(shown).int() - levels(stand.x[stand.span(start)]).int()).abs().flatten(1)
    return stand.judged(start, shown) | {"levels": apart.float().mean(1).tolist(), "restored": (apart == 0).float().mean(1).tolist()}


def purified(spec: str, release: str, stand: Stand, start: int) -> Cell:
    return cell_of(stand, start, to_8bit(bind(CHANNELS, spec)(stand.release(release, start), noise=Noise(2, stand.ids(start)))))


def subtracted(stand: Stand, start: int) -> Cell:
    """The instant network, which ships with the package, arms the release again for the class it sees itself; its change is taken off."""
    released, ids = stand.release("mspd", start), stand.ids(start)
    said = torch.zeros_like(ids)
    again = instant(
        stand.targets[BACKBONE].twin, released, said, threat=THREAT, noise=Noise(0, ids), writer=load_writer("cifar10_instant"), own=True
    )
    return cell_of(stand, start, to_8bit(2.0 * released - again))


def unlearned(backbone: str, release: str, stand: Stand, start: int) -> Cell:
    net = learned(stand.folder, backbone, THREAT)  # frozen once it is trained
    return cell_of(stand, start, to_8bit(net(stand.release(release, start))))


def counted(stand: Stand, start: int) -> Cell:
    """He reverts and attacks, and is then drawn back into the ball around the release; where the plain attack on the release does it, he takes that."""
    released, back = stand.release("mspd", start), GUESSES["reverts, knows everything"].undo(stand, start)
    y, ids, attack = stand.y[stand.span(start)], stand.ids(start), forearm.attack(ATTACK)
    plain = stand.judged(start, released)
    for name, target in stand.targets.items():
        x_adv = attack(target.model, back, y, threat=THREAT, noise=Noise(1, ids), twin=target.twin)
        stands = verdict(target.model, THREAT.project(x_adv, released), y)[0].tolist()
        plain["verdicts"][name] = [[clean, robust and more] for (clean, robust), more in zip(plain["verdicts"][name], stands, strict=True)]
    return plain


def rows_of(stand: Stand) -> dict[str, Row]:
    """The bare picture, the release, and every attacker whose nets are there."""
    rows = {
        "none": Row("none", lambda stand, start: cell_of(stand, start, stand.x[stand.span(start)])),
        "mspd": Row("mspd", lambda stand, start: cell_of(stand, start, stand.release("mspd", start))),
    }
    for name, guess in GUESSES.items():
        if guess.backbone in stand.sources:
            rows[name] = Row(f"revert {guess}", lambda stand, start, guess=guess: cell_of(stand, start, guess.undo(stand, start)))
    rows[COUNTED] = Row("revert, counted", counted)
    rows |= {f"purifies, {name}": Row(f"purify {spec}", partial(purified, spec, "mspd")) for name, spec in PURIFIERS.items()}
    rows[OWN] = Row("instant", subtracted)
    rows |= {
        name: Row(f"remover {net} {COUNT} {EPOCHS}", partial(unlearned, net, "mspd"), True)
        for name, net in PAIRS.items()
        if net in stand.sources
    }
    everything = "reverts, knows everything"
    rows[everything + ALIKE] = Row(
        "revert bare", lambda stand, start: cell_of(stand, start, GUESSES[everything].undo(stand, start, "none"))
    )
    rows |= {f"purifies, {name}{ALIKE}": Row(f"purify bare {spec}", partial(purified, spec, "none")) for name, spec in PURIFIERS.items()}
    first = next(iter(PAIRS))
    return rows | {first + ALIKE: Row(f"remover bare {PAIRS[first]} {COUNT} {EPOCHS}", partial(unlearned, PAIRS[first], "none"), True)}


def summed(stand: Stand, rows: dict[str, Row]) -> dict[str, Any]:
    """Every attacker that was measured."""
    found = verdicts_of(stand, rows)
    made = {}
    for name in found:
        cells = [cell for _, cell in collected(stand, rows[name])]
        facts = {
            key: round(sum(each) / len(each), 5)
            for key in ("levels", "restored", "psnr")
            if name != COUNTED and (each := [v for cell in cells for v in cell[key]])
        }
        made[name] = facts | compared(stand, found, name, ("none", "mspd", name + ALIKE))
    return {"attackers": made, "absent": list(stand.absent), "not measured": missing(stand, rows)}


def law(attackers: dict[str, Any]) -> dict[str, Any]:
    """The differences to the undefended picture over all attackers and targets: the least bound, the least value, those wholly below zero."""
    cells = {
        (name, target): cell["above none"]
        for name, row in attackers.items()
        for target, cell in row["targets"].items()
        if name != "none" and not name.endswith(ALIKE) and "above none" in cell
    }
    lowest = min(cells, key=lambda key: cells[key]["interval"][0])
    least = min(cells, key=lambda key: cells[key]["value"])
    return {
        "cells": len(cells),
        "least bound": {"attacker": lowest[0], "target": lowest[1], **cells[lowest]},
        "least value": {"attacker": least[0], "target": least[1], **cells[least]},
        "below": [f"{name}, {target}" for (name, target), cell in cells.items() if cell["value"] < 0],
        "wholly below": [f"{name}, {target}" for (name, target), cell in cells.items() if cell["interval"][1] < 0],
        "wholly above": sum(cell["interval"][0] > 0 for cell in cells.values()),
        "below the bare picture treated alike": [
            f"{name}, {target}"
            for name, row in attackers.items()
            for target, cell in row["targets"].items()
            if (alike := cell.get(f"above {name}{ALIKE}")) and alike["value"] < 0
        ],
    }


def draw(attackers: dict[str, Any]) -> None:
    """`docs/pictures/mspd_reversion.png`: robust accuracy above the bare picture for each attacker, on the backbone and the mean of held-out targets."""
    from matplotlib import pyplot as plt

    names = [name for name in attackers if name != "none" and not name.endswith(ALIKE)]
    figure, axis = plt.subplots(figsize=(8.6, 0.33 * len(names) + 1.1))
    for shift, (label, colour) in enumerate((("backbone itself", "tab:gray"), ("held-out targets, mean", "tab:blue"))):
        cells = [attackers[n]["targets"][BACKBONE]["above none"] if shift == 0 else attackers[n]["held out"]["above none"] for n in names]
        value = [100 * cell["value"] for cell in cells]
        ends = [[100 * end for end in cell["interval"]] for cell in cells]
        bars = [[v - e[0] for v, e in zip(value, ends, strict=True)], [e[1] - v for v, e in zip(value, ends, strict=True)]]
        places = [i + 0.14 * (2 * shift - 1) for i in range(len(names))]
        axis.errorbar(value, places, xerr=bars, fmt="o", ms=4, capsize=2, lw=1, color=colour, label=label)
    axis.set_yticks(range(len(names)), ["does not know" if n == "mspd" else n.replace("cifar10_", "") for n in names], fontsize=8)
    axis.invert_yaxis()
    axis.axvline(0, color="black", lw=0.8)
    axis.grid(axis="x", lw=0.3)
    axis.set_xlabel("PGD-20 accuracy, points above the undefended picture (paired, 95 %)", fontsize=8)
    axis.legend(fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, frameon=False)
    figure.tight_layout()
    FIGURES.mkdir(parents=True, exist_ok=True)
    figure.savefig(FIGURES / "mspd_reversion.png", dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description="What attackers who know more or less of MSPD can undo.")
    parser.add_argument("--examples", type=int, default=150)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so many, between two units")
    given = parser.parse_args()
    stand = Stand.load("mspd_reversion", given.examples, arming=("cifar10_wide",))
    rows = rows_of(stand)
    run(stand, rows, given.minutes)
    details = summed(stand, rows)
    attackers = details["attackers"]
    if "none" not in attackers or len(attackers) < 2:
        print("no claim yet: too little is measured")
        return
    details["law"] = found = law(attackers)
    bound = found["least bound"]
    record(
        "mspd_reversion",
        "whatever an attacker knows of MSPD and does to a release first, it is never worse off than the undefended picture",
        100 * bound["interval"][0],
        f"points of PGD-20 accuracy above the undefended picture, the least lower bound over {found['cells']} cells",
        n=bound["n"],
        at_least=0.0,
        details=details,
    )
    draw(attackers)


if __name__ == "__main__":
    main()
