"""The matrix file that makes a store again, from the cells alone."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from forearm.evaluate.cell import Cell
from forearm.report.findings import Bench, Entry

LISTS = ("defenses", "attacks")


def matrix_text(benches: Sequence[Bench], masking: bool) -> str:
    """TOML for `forearm audit` whose cells are those of the benches. Models that were read from a path keep that path.

    masking: whether the store has verdicts. Contents are not in it: the audit hashes what it finds, and a cell's key says if it is the same.
    """
    grids: list[dict[str, Any]] = []
    for bench in benches:
        for entry in bench.entries:
            for source, informed, attacks in _asked(entry):
                grid = _grid(entry.cell, informed) | ({"source": source} if source else {}) | {"attacks": attacks}
                like = [one for one in grids if all(one.get(name) == grid.get(name) for name in {*one, *grid} - {"defenses"})]
                if like:
                    like[0]["defenses"].append(entry.cell.defense)
                else:
                    grids.append(grid | {"defenses": [entry.cell.defense]})
    head = [] if masking else ["masking = false", ""]
    return "\n".join([*head, "\n\n".join(_table(grid) for grid in grids), ""])


def _asked(entry: Entry) -> list[tuple[str, bool | str, list[str]]]:
    """The attacks of an entry by the model that they were made on and by who made them: both kinds of attacker, or one alone."""
    found: list[tuple[str, bool | str, list[str]]] = []
    for source in sorted({one.cell.source for one in entry.attempts}):
        made = [attempt.cell for a in entry.attacks for who in (False, True) if (attempt := entry.attempt(a, who))]
        by = {who: [cell.attack for cell in made if (cell.source, cell.informed) == (source, who)] for who in (False, True)}
        both = [attack for attack in by[False] if attack in by[True]]
        found += [
            (source, "both", both),
            (source, False, [attack for attack in by[False] if attack not in both]),
            (source, True, [attack for attack in by[True] if attack not in both]),
        ]
    return [asked for asked in found if asked[2]]


def _grid(cell: Cell, informed: bool | str) -> dict[str, Any]:
    grid: dict[str, Any] = {
        "datasets": [cell.dataset],
        "split": cell.split,
        "examples": cell.examples,
        "pick": cell.pick,
        "seed": cell.seed,
        "models": [cell.model],
        "wear": [cell.wear],
        "threats": [cell.threat],
        "informed": informed,
        "labels": cell.labels,
        "around": cell.around,
    }
    made = {"backbone": cell.backbone, "labeller": cell.labeller, "release_threat": cell.release_threat}
    return grid | {name: value for name, value in made.items() if value}


def _table(grid: dict[str, Any]) -> str:
    """One [[grid]]: JSON's strings, numbers, lists and booleans are TOML's, as long as letters are not written as surrogates."""
    return "\n".join(["[[grid]]", *(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in grid.items())])
