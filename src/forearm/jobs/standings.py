"""What a store's rows add up to for the terminal: each attack's robust accuracy, and the worst case over all of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from forearm.evaluate.cell import Cell
from forearm.evaluate.statistics import worst_case
from forearm.evaluate.store import Store


@dataclass(frozen=True, slots=True)
class Standing:
    """One model under one defence and threat, on `n` examples. Counts of examples that are right.

    clean: on the bare pictures; protected: on what is released and worn; attacks: after each attack, by its name (and its source) and whether the
    attacker is informed; worst: after all of them, those made on another model too. cell: any of its cells.
    """

    cell: Cell
    n: int
    clean: int
    protected: int
    attacks: tuple[tuple[str, bool, int], ...]
    worst: int
    known: bool  # somebody who has the model and knows its defence is among them

    @property
    def unattacked(self) -> bool:
        """Whether the defence was not attacked by anyone who knows it."""
        return self.cell.defense != "none" and not self.known


def standings(store: Store, cells: Sequence[Cell]) -> list[Standing]:
    """The standings of some complete cells, in the order of the first cell of each."""
    groups: dict[Cell, list[Cell]] = {}
    for cell in cells:
        contents = tuple(one for one in cell.contents if not one.startswith("source="))
        groups.setdefault(dataclasses.replace(cell, attack="", informed=False, source="", contents=contents), []).append(cell)
    found = []
    for group in groups.values():
        rows = [(cell, store.rows(cell)) for cell in group]
        attacks = tuple((cell.told, cell.informed, int(frame["robust"].sum())) for cell, frame in rows)
        _, survivors = worst_case({cell.key: (frame["id"].to_numpy(), frame["robust"].to_numpy()) for cell, frame in rows})
        clean, protected = (int(rows[0][1][name].sum()) for name in ("clean", "protected"))
        known = any(cell.informed and not cell.source for cell in group)
        found.append(Standing(group[0], len(survivors), clean, protected, attacks, int(survivors.sum()), known))
    return found
