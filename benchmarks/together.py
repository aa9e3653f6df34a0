"""Claim: against who knows both, GCM adds nothing to MSPD nor to a bare model, and MSPD keeps what it is worth, on robust and natural models and a MID student.

`examples/together.toml` on the first CIFAR-10 test images and on held-out photos, with a robust CIFAR-10 net that this project did not train, a MID
student of the zoo, and with one attacker more: he knows GCM and not MSPD's settings, so he takes the bare model's gradient around what was released.
The worst case is over all attackers. Needs the data sets in FOREARM_DATA. A run that was broken off goes on with the same command.

    python benchmarks/together.py [--examples 200] [--photos 100] [--jobs 2] [--models cifar10_backbone resnet2b]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from claim import record
from forearm.data import sets
from forearm.evaluate.cell import Cell
from forearm.evaluate.chosen import Sources
from forearm.evaluate.matrix import Matrix, cells, read_matrix
from forearm.evaluate.statistics import attack_success, worst_case
from forearm.evaluate.store import Store
from forearm.registry import parse
from forearm.report.findings import Attempt, Entry, benches
from gcm_table import ROOT, Only, make, paired, rate, short

STORE = ROOT / "runs" / "together"
BOTH = "mspd+conceal"
KINDS = {  # how each was trained
    "cifar10_backbone": "robust, MSPD's backbone",
    "cifar10_labeller": "natural",
    "resnet2b": "robust",
    "cifar10_mid": "MID student",
    "photo_target": "robust",
    "photo_labeller": "natural",
}
AROUND = ("known_pgd", "known_apgd")  # GCM is known, the release is not reverted


def combined(examples: int, count: int, models: Iterable[str] = tuple(KINDS)) -> tuple[Matrix, list[Cell]]:
    """The matrix with so many CIFAR-10 images and photos and one more robust net, of `models` alone; and the cells of who knows GCM alone."""
    matrix = read_matrix(ROOT / "examples" / "together.toml")
    foreign = f"resnet2b={sets.root() / 'cifar10_weights' / 'abcrown' / 'resnet2b.pth'}"
    small, large = matrix.grid
    grids = [
        small.model_copy(update={"models": [*small.models, foreign, "cifar10_mid"], "examples": examples}),
        large.model_copy(update={"examples": count}),
    ]
    kept = [grid.model_copy(update={"models": [name for name in grid.models if name.partition("=")[0] in models]}) for grid in grids]
    matrix = matrix.model_copy(update={"grid": [grid for grid in kept if grid.models]})
    return matrix, around_cells(cells(matrix, Sources()))


def around_cells(found: Iterable[Cell]) -> list[Cell]:
    """For every model of a matrix's cells, who knows GCM alone against both defences."""
    both = {cell.model: cell for cell in found if cell.defense == BOTH}
    return [replace(cell, attack=attack, informed=True) for cell in both.values() for attack in AROUND]


def findings(store: Store, found: Iterable[Cell]) -> dict[str, Any]:
    """By model and defence: robust accuracy by what the attacker knows, the worst of all, and what GCM and the whole defence add to it, in pairs."""
    rows: dict[str, Any] = {}
    for bench in benches(Only(store, tuple(found))):
        entries = {entry.cell.defense: entry for entry in bench.entries}
        name = short(bench.cell.model)
        made = {defense: _entry(entry) for defense, entry in entries.items()}
        for defense, entry in entries.items():
            made[defense]["above none"] = paired(entry.survivors[1], entries["none"].survivors[1])
        for with_gcm, without in (("conceal", "none"), (BOTH, "mspd")):
            made[with_gcm]["above the same without GCM"] = paired(entries[with_gcm].survivors[1], entries[without].survivors[1])
        rows[name] = {"kind": KINDS.get(name, "natural"), "data": bench.cell.dataset, "threat": bench.cell.threat, "defenses": made}
    return rows


def _entry(entry: Entry) -> dict[str, Any]:
    ignorant = [one for one in entry.attempts if not one.cell.informed]
    around = [one for one in entry.attempts if parse(one.cell.attack)[0] in AROUND]
    told = [one for one in entry.attempts if one.cell.informed and one not in around]
    return {
        "clean": rate(entry.clean),
        "released": rate(entry.before),
        "knows nothing": _left(entry, ignorant),
        "knows GCM alone": _left(entry, around),
        "knows all": _left(entry, told),
        "worst": rate(entry.worst.accuracy),
    }


def _left(entry: Entry, attempts: list[Attempt]) -> dict[str, Any] | None:
    """Robust accuracy over some of an entry's attackers; None where there are none."""
    if not attempts:
        return None
    survivors = worst_case({str(one.cell): (one.ids, one.robust) for one in attempts})[1]
    return rate(attack_success(entry.right_before, survivors & entry.right_before).accuracy)


def main() -> None:
    parser = argparse.ArgumentParser(description="MSPD and GCM together, on robust and natural models.")
    parser.add_argument("--examples", type=int, default=200, help="CIFAR-10 test pictures")
    parser.add_argument("--photos", type=int, default=100, help="held-out photos")
    parser.add_argument("--jobs", type=int, default=2, help="processes")
    parser.add_argument("--models", nargs="+", default=[*KINDS], choices=[*KINDS], help="these alone")
    given = parser.parse_args()
    store, (matrix, around) = Store(STORE), combined(given.examples, given.photos, given.models)
    make(matrix, around, store, given.jobs)
    details = findings(store, (*cells(matrix, Sources()), *around))
    added = [made["above the same without GCM"] for row in details.values() for name, made in row["defenses"].items() if "conceal" in name]
    most = max(added, key=lambda one: abs(float(one["value"])))
    record(
        "together",
        "in the worst case over attackers who know and who do not, GCM adds nothing: neither to a bare model nor to MSPD: robust, natural or trained by MID",
        100 * abs(most["value"]),
        "points of worst-case robust accuracy that GCM changes, the most over models, with MSPD and without",
        n=sum({row["data"]: row["defenses"]["none"]["worst"]["n"] for row in details.values()}.values()),
        at_most=1.0,
        holds=all(one["interval"][0] <= 0.0 <= one["interval"][1] for one in added),
        details=details,
    )


if __name__ == "__main__":
    main()
