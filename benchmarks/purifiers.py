"""Claim: who knows a purifier at test time takes off at least ten points of what it seems to be worth, in the mean over purifiers.

`examples/purifiers.toml`: every input transform and purifier before the natural CIFAR-10 net, PGD-20 at 2/255 by an attacker who differentiates the bare
model and hands the pictures over, by one who differentiates what he is given and does not know that it is there, and by one who knows it (through it,
at the purified picture, or in the mean of what it draws). The value is the mean over purifiers of robust accuracy against the first two less that in the
worst case over all three. Needs CIFAR-10 in FOREARM_DATA. A run that was broken off goes on with the same command.

    FOREARM_DATA=... python benchmarks/purifiers.py [--examples 100] [--jobs 2]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import numpy as np

from claim import record
from forearm.evaluate.cell import Cell
from forearm.evaluate.chosen import Sources
from forearm.evaluate.matrix import cells, read_matrix
from forearm.evaluate.store import Store
from gcm_table import ROOT, make, paired
from mspd_gain import rate

STORE = ROOT / "runs" / "purifiers"
WAYS = {
    "carried over": (True, False),
    "does not know": (False, False),
    "knows": (False, True),
}  # whether made on the bare model; whether informed


def findings(store: Store, found: Iterable[Cell]) -> dict[str, Any]:
    """By defence: clean accuracy, robust accuracy by each attacker and in the worst case, what is above the bare model, and what seems to be."""
    flags: dict[str, dict[str, Any]] = {}
    for cell in found:
        rows = store.rows(cell).sort("id")
        way = next(name for name, (carried, informed) in WAYS.items() if (bool(cell.source), cell.informed) == (carried, informed))
        flags.setdefault(cell.defense, {"clean": rows["protected"].to_torch().bool()})[way] = rows["robust"].to_torch().bool()
    made = {}
    for defense, held in flags.items():
        tried = {way: held[way] for way in WAYS if way in held}
        seeming = np.logical_and.reduce([right.numpy() for way, right in tried.items() if way != "knows"])
        worst = np.logical_and.reduce([right.numpy() for right in tried.values()])
        bare = np.logical_and.reduce([right.numpy() for way, right in flags["none"].items() if way in WAYS])
        made[defense] = {
            "clean": rate(held["clean"]),
            **{way: rate(right) for way, right in tried.items()},
            "worst": rate(held["clean"].new_tensor(worst)),
            "above none": paired(worst, bare),
            "seems above what it is": paired(seeming, worst),
        }
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description="Purifiers at test time, and the attacker who knows them.")
    parser.add_argument("--examples", type=int, default=100, help="CIFAR-10 test pictures")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    given = parser.parse_args()
    store, matrix = Store(STORE), read_matrix(ROOT / "examples" / "purifiers.toml").model_copy(update={"examples": given.examples})
    make(matrix, [], store, given.jobs)
    details = findings(store, cells(matrix, Sources()))
    seems = [row["seems above what it is"]["value"] for name, row in details.items() if name != "none"]
    record(
        "purifiers",
        "who knows a purifier takes off at least ten points of what it seems to be worth, in the mean over purifiers",
        100 * sum(seems) / len(seems),
        f"points of PGD-20 accuracy at 2/255 that purifiers seem to be worth and are not, mean of {len(seems)}",
        n=given.examples,
        at_least=10.0,
        details=details,
    )


if __name__ == "__main__":
    main()
