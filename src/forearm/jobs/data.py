"""What `forearm data` does: which data sets are there, whether they are as they were fetched, and fetching."""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from forearm.data import sets
from forearm.data.catalogue import CATALOGUE, Entry
from forearm.data.fetch import Progress, changed, fetch, read_record
from forearm.errors import ForearmError, InputError, SpecError


@dataclass(frozen=True, slots=True)
class Listed:
    """A data set. `splits`: name -> number of pictures as published; `present`: the splits whose files are at `where`.

    `check`: "" where none was asked for, "ok", "not fetched" (no record to check against), or what is wrong.
    """

    name: str
    title: str
    where: str
    present: tuple[str, ...]
    splits: dict[str, int]
    shape: str
    classes: int
    source: str
    licence: str
    fetchable: bool
    check: str


def listing(verify: bool = False, *, catalogue: Mapping[str, Entry] = CATALOGUE) -> tuple[Listed, ...]:
    """All data sets. Files are only looked for; `verify` hashes those that were fetched."""
    return tuple(_listed(name, entry, verify) for name, entry in catalogue.items())


def _listed(name: str, entry: Entry, verify: bool) -> Listed:
    own = any(entry.splits[split] == 0 for split in entry.splits)
    where = sets.root() / name
    present = () if own else tuple(split for split in entry.splits if _present(name, split, where))
    if name in sets.MADE_FROM and not any(where.rglob("*.npy")):
        where = sets.root() / sets.MADE_FROM[name]  # its pictures are made from these
    check = _check(where) if verify and present else ""
    return Listed(
        name,
        entry.title,
        "" if own or not present else str(where),
        present,
        dict(entry.splits),
        entry.shape,
        entry.classes,
        entry.source,
        entry.licence,
        bool(entry.files),
        check,
    )


def _present(name: str, split: str, where: Path) -> bool:
    """Whether a reader finds its files: asked for the first 0 pictures, it reads none."""
    try:
        sets.load(name, split, where, first=0)
    except (InputError, OSError):
        return False
    return True


def _check(where: Path) -> str:
    try:
        if not read_record(where):
            return "not fetched"
        wrong = changed(where)
    except ForearmError as error:
        return str(error)
    return f"changed: {', '.join(wrong)}" if wrong else "ok"


def get(
    name: str,
    to: Path | None = None,
    *,
    report: Progress = lambda _name, _there, _all: None,
    catalogue: Mapping[str, Entry] = CATALOGUE,
    pause: float = 1.0,
) -> tuple[Path, tuple[str, ...]]:
    """Fetch a data set into its folder under `to` (default: `sets.root()`); the folder, and the files that were not there before."""
    if name not in catalogue:
        close = difflib.get_close_matches(name, catalogue, 1)
        hint = f"did you mean {close[0]!r}?" if close else f"one of {', '.join(n for n, e in catalogue.items() if e.files)}"
        raise SpecError(f"data fetch: got {name!r}; {hint}")
    if not catalogue[name].files:
        raise SpecError(f"data fetch: {name} cannot be fetched ({catalogue[name].source}); for example 'cifar10'")
    if to is None and not os.environ.get("FOREARM_DATA") and not sets.root().is_dir():
        raise SpecError("data fetch: no place to put it; --to DIR, or FOREARM_DATA=/path/to/data")
    folder = (to or sets.root()) / name
    return folder, fetch(name, catalogue[name], folder, report=report, pause=pause)
