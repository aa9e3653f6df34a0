"""What a store of verdicts says: one bench a model, data set and threat, one entry a defence, with the worst case over all who attacked it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import polars as pl

from forearm.attacks.table import TRAITS
from forearm.core.threat import Threat
from forearm.errors import InputError
from forearm.evaluate.cell import Cell
from forearm.evaluate.statistics import (
    Attacked,
    Distances,
    Flags,
    Ids,
    Share,
    attack_success,
    broken_at,
    eps_curve,
    mcnemar,
    paired_difference,
    smallest,
    worst_case,
)
from forearm.registry import parse

RADII = 65  # points of an eps curve
UNCHANGED = 0.05  # a larger share of pictures that an attack gave back untouched is marked


class Source(Protocol):
    """What is read of a store."""

    def cells(self) -> list[Cell]: ...
    def rows(self, cell: Cell) -> pl.DataFrame: ...
    def masking(self) -> list[dict[str, Any]]: ...


@dataclass(frozen=True, eq=False)
class Attempt:
    """One cell: one attack by one who knows the defence or not. Its rows are sorted by id."""

    cell: Cell
    rows: pl.DataFrame

    @property
    def ids(self) -> Ids:
        """Positions in the data set, ascending."""
        return self.rows["id"].to_numpy()

    @property
    def before(self) -> Flags:
        """Right on what is attacked, before any attack."""
        return self.rows["protected"].to_numpy()

    @property
    def robust(self) -> Flags:
        """Still right after it."""
        return self.rows["robust"].to_numpy()

    @cached_property
    def attacked(self) -> Attacked:
        """Robust accuracy, AR and success rate."""
        return attack_success(self.before, self.robust)

    @cached_property
    def unchanged(self) -> Share | None:
        """The share of attacked pictures (right before) that the attack gave back untouched; None where it attacked none."""
        tried = self.rows.filter("protected")
        return Share(len(tried) - int(tried["changed"].sum()), len(tried)) if len(tried) else None

    @property
    def stuck(self) -> bool:
        """Whether so many pictures came back untouched that the attack, not the model, may have failed."""
        return self.unchanged is not None and self.unchanged.value > UNCHANGED

    @property
    def minimal(self) -> bool:
        """Whether the attack looks for the smallest change."""
        traits = TRAITS.get(parse(self.cell.attack)[0])
        return traits is not None and traits.kind == "minimal"


@dataclass(frozen=True, slots=True)
class Comparison:
    """The worst case against that of "none", on the same examples.

    difference and interval: paired, in shares; p: exact McNemar; same_attacks: whether "none" met the same attacks.
    """

    difference: float
    interval: tuple[float, float]
    p: float
    same_attacks: bool


@dataclass(frozen=True, eq=False)
class Entry:
    """One defence on one bench: every attack on it, over the same examples."""

    attempts: tuple[Attempt, ...]

    @property
    def cell(self) -> Cell:
        """One of its cells: all agree on what is not the attacker's."""
        return self.attempts[0].cell

    @property
    def conditions(self) -> tuple[str, ...]:
        """What a reader must know beside the defence's name."""
        cell = self.cell
        said = [f"backbone {cell.backbone}"] if cell.backbone else []
        said += [f"labeller {cell.labeller} ({cell.labels})"] if cell.labeller else [f"labels {cell.labels}"] if cell.backbone else []
        said += [f"released within {cell.release_threat}"] if cell.release_threat not in ("", cell.threat) else []
        return (*said, *(["attacked around the original"] if cell.around != "release" else []))

    @cached_property
    def clean(self) -> Share:
        """Right on the bare pictures."""
        flags = self.attempts[0].rows["clean"]
        return Share(int(flags.sum()), len(flags))

    @cached_property
    def right_before(self) -> Flags:
        """Right on what is attacked, whoever is going to attack it."""
        return worst_case({one.cell.key: (one.ids, one.before) for one in self.attempts})[1]

    @cached_property
    def before(self) -> Share:
        """The share of `right_before`."""
        return Share(int(self.right_before.sum()), len(self.right_before))

    @cached_property
    def survivors(self) -> tuple[Ids, Flags]:
        """Who survives every attack, informed or not."""
        return self._survivors(self.attempts)

    @cached_property
    def worst(self) -> Attacked:
        """*The* number: over all attacks, informed and uninformed."""
        return attack_success(self.right_before, self.survivors[1])

    @cached_property
    def uninformed(self) -> Attacked | None:
        """The worst case over those who do not know the defence."""
        return self._worst([one for one in self.attempts if not one.cell.informed])

    @cached_property
    def informed(self) -> Attacked | None:
        """The worst case over those who know it."""
        return self._worst([one for one in self.attempts if one.cell.informed])

    @property
    def unknown(self) -> bool:
        """A defence that was not attacked by anyone who knows it and has the model itself."""
        return self.cell.defense != "none" and not any(one.cell.informed and not one.cell.source for one in self.attempts)

    @property
    def stuck(self) -> tuple[str, ...]:
        """The attacks that gave many pictures back untouched."""
        return tuple(one.cell.told for one in self.attempts if one.stuck)

    @property
    def attacks(self) -> tuple[str, ...]:
        """The attacks in words (`Cell.told`), each once, in the order of the table of attacks."""
        order = list(TRAITS)
        names = {one.cell.told: parse(one.cell.attack)[0] for one in self.attempts}
        return tuple(sorted(names, key=lambda text: (order.index(names[text]) if names[text] in order else len(order), text)))

    def attempt(self, attack: str, informed: bool) -> Attempt | None:
        """The one attempt with this attack (of `attacks`) by one who knows the defence or not."""
        found = [one for one in self.attempts if one.cell.told == attack and one.cell.informed == informed]
        return found[0] if found else None

    @cached_property
    def curve(self) -> tuple[tuple[float, Share], ...] | None:
        """Robust accuracy by radius up to the threat's, over all attacks; None where no attack looked for the smallest change."""
        if not any(one.minimal for one in self.attempts):
            return None
        found: Distances = smallest([broken_at(one.rows["distance"].to_numpy(), one.robust, one.before) for one in self.attempts])
        radii = np.linspace(0.0, Threat.parse(self.cell.threat).eps, RADII).tolist()
        return tuple(zip(radii, eps_curve(found, radii), strict=True))

    def against(self, none: Entry) -> Comparison:
        """This worst case against the one of "none"."""
        mine, its = self.survivors[1], none.survivors[1]
        difference, low, high = paired_difference(mine, its)
        p = mcnemar(int((mine & ~its).sum()), int((its & ~mine).sum()))
        return Comparison(difference, (low, high), p, self.attacks == none.attacks)

    def _worst(self, attempts: Sequence[Attempt]) -> Attacked | None:
        return attack_success(self.right_before, self._survivors(attempts)[1] & self.right_before) if attempts else None

    @staticmethod
    def _survivors(attempts: Sequence[Attempt]) -> tuple[Ids, Flags]:
        return worst_case({f"{one.cell} ({one.cell.key[:12]})": (one.ids, one.robust) for one in attempts})


@dataclass(frozen=True, eq=False)
class Bench:
    """A model on chosen pictures under one threat (and one wear), and the defences that were tried there; "none" comes first."""

    entries: tuple[Entry, ...]

    @property
    def cell(self) -> Cell:
        """One of its cells: all agree on what is not the defence's or the attacker's."""
        return self.entries[0].cell

    @property
    def title(self) -> str:
        """The model, the data set, the threat and the wear, in words."""
        cell = self.cell
        return f"{cell.model} on {cell.dataset}, {cell.threat}" + ("" if cell.wear == "none" else f", worn by {cell.wear}")

    @property
    def pictures(self) -> str:
        """Which pictures were attacked, in words."""
        cell = self.cell
        which = "the first" if cell.pick == "first" else "evenly chosen"
        return f"{which} {cell.examples} pictures of {cell.dataset} {cell.split}, seed {cell.seed}"

    @property
    def attacks(self) -> tuple[str, ...]:
        """All attacks on any of its entries."""
        return tuple(dict.fromkeys(attack for entry in self.entries for attack in entry.attacks))

    def none(self, entry: Entry) -> Entry | None:
        """The undefended model that an entry is held against: attacked around the same centre, if that was measured."""
        bare = [one for one in self.entries if one.cell.defense == "none"]
        same = [one for one in bare if one.cell.around == entry.cell.around]
        return next(iter(same or bare), None)

    def comparison(self, entry: Entry) -> Comparison | None:
        """An entry against "none"; None for "none" itself, or without it."""
        none = self.none(entry)
        return None if none is None or entry.cell.defense == "none" else entry.against(none)

    @property
    def curves(self) -> dict[str, tuple[tuple[float, Share], ...]]:
        """The eps curves by the entry's name."""
        return {name: entry.curve for name, entry in zip(self.names, self.entries, strict=True) if entry.curve is not None}

    @property
    def names(self) -> tuple[str, ...]:
        """The defence of each entry, with its conditions where the defence alone does not tell entries apart."""
        plain = [entry.cell.defense for entry in self.entries]
        return tuple(
            name if plain.count(name) == 1 else ", ".join((name, *entry.conditions))
            for name, entry in zip(plain, self.entries, strict=True)
        )


def benches(store: Source) -> tuple[Bench, ...]:
    """All that a store holds, in an order of names. InputError for a store without a finished cell.

    Cells that differ in nothing that can matter (who labels for a defence that releases nothing) count once.
    """
    found: dict[tuple[Any, ...], dict[tuple[Any, ...], dict[tuple[Any, ...], Attempt]]] = {}
    for cell in sorted(store.cells(), key=lambda cell: cell.key):
        attempts = found.setdefault(_bench(cell), {}).setdefault(_entry(cell), {})
        attacker = (cell.attack, cell.source, cell.informed, _contents(cell, ("source",)))
        if attacker not in attempts:
            attempts[attacker] = Attempt(cell, store.rows(cell).sort("id"))
    if not found:
        raise InputError("report: the store holds no finished cell; run for example 'forearm audit matrix.toml --store runs/' first")
    return tuple(
        Bench(tuple(Entry(tuple(attempts[one] for one in sorted(attempts))) for _, attempts in sorted(entries.items())))
        for _, entries in sorted(found.items())
    )


def _bench(cell: Cell) -> tuple[Any, ...]:
    contents = _contents(cell, ("model", "pictures"))
    bound = Threat.parse(cell.threat)
    place = (cell.dataset, cell.split, cell.model, bound.norm.name, bound.eps, cell.threat, cell.wear != "none", cell.wear)
    return (*place, cell.examples, cell.pick, cell.seed, contents)


def _entry(cell: Cell) -> tuple[Any, ...]:
    kept = _contents(cell, ("backbone", "labeller"))
    made = (cell.labels, cell.backbone, cell.labeller, cell.release_threat, *kept) if cell.backbone else ()
    return (cell.defense != "none", cell.defense, cell.around != "release" if cell.backbone or cell.wear != "none" else False, made)


def _contents(cell: Cell, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(one for one in cell.contents if one.partition("=")[0] in names)


def judged(entry: Entry, verdicts: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """The masking verdict on an entry's hardened model, as the store holds it, or None.

    An audit judges each data set, model and defence once, under its first threat. Of several that a store may hold, the one that agrees with the
    entry in most fields; of equals, one that says "masked".
    """
    cell = entry.cell
    own = [
        one for one in verdicts if all(one["about"].get(name) == getattr(cell, name) for name in ("dataset", "split", "model", "defense"))
    ]
    own = [one for one in own if _contents(cell, ("model",))[0] in one["about"].get("contents", ())]
    return max(own, key=lambda one: (_agreement(cell, one["about"]), one["verdict"]["masked"]), default=None)


def _agreement(cell: Cell, about: Mapping[str, Any]) -> int:
    own = dataclasses.asdict(cell) | {"contents": [one for one in cell.contents if not one.startswith("source=")]}
    return sum(own.get(name) == value for name, value in about.items())
