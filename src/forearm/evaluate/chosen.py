"""What the names of a matrix stand for: the chosen pictures of a data set, and the weights of a model, each with its hash."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forearm.data import sets
from forearm.errors import InputError
from forearm.models.card import Card
from forearm.models.load import ALIASES, load_model, locate
from forearm.registry import parse


@dataclass(frozen=True, slots=True)
class Chosen:
    """Labelled pictures of one data set. pixels: uint8 `n c h w`; y: classes `n`; ids: positions in the split, ascending; sha256: over all three."""

    pixels: NDArray[np.uint8]
    y: NDArray[np.int64]
    ids: NDArray[np.int64]
    classes: tuple[str, ...]
    sha256: str

    def __len__(self) -> int:
        return len(self.ids)

    def part(self, span: slice) -> Chosen:
        """Some of the pictures; the hash stays that of all."""
        return Chosen(self.pixels[span], self.y[span], self.ids[span], self.classes, self.sha256)


def choose(dataset: str, split: str, examples: int | None, pick: str, folder: Path | None = None) -> Chosen:
    """The "first" examples of a split (None: all), or as many at "even" distances: position floor(i n / examples) of n.

    InputError where the split has fewer.
    """
    pictures = sets.load(dataset, split, folder, first=examples if pick == "first" else None)
    n = len(pictures)
    wanted = n if examples is None else examples
    if not 0 < wanted <= n:
        raise InputError(f"{dataset}: got examples = {wanted} of the split {split!r}, which has {n}; 1 to {n}, for example {min(n, 100)}")
    ids = np.arange(wanted, dtype=np.int64)
    ids = ids * n // wanted if pick == "even" else ids
    pixels = np.ascontiguousarray(pictures.images.numpy()[ids])
    y = np.ascontiguousarray(pictures.labels.numpy()[ids]).astype(np.int64)
    total = hashlib.sha256(repr(pixels.shape).encode())
    for array in (pixels, y, ids):
        total.update(array.tobytes())
    return Chosen(pixels, y, ids, pictures.classes, total.hexdigest())


@dataclass(frozen=True, slots=True)
class Sources:
    """Data sets (below `folder`, or where `data.sets` looks) and cards by name, each read once."""

    folder: Path | None = None
    _chosen: dict[tuple[str, str, int | None, str], Chosen] = field(default_factory=dict, repr=False, compare=False)
    _cards: dict[str, Card] = field(default_factory=dict, repr=False, compare=False)

    def pictures(self, dataset: str, split: str, examples: int | None, pick: str) -> Chosen:
        """The chosen pictures of a data set."""
        wanted = (dataset, split, examples, pick)
        if wanted not in self._chosen:
            name, options = parse(dataset)
            where = self.folder if self.folder is None or "path" in options else self.folder / name
            found = choose(dataset, split, examples, pick, where)
            self._chosen[wanted] = self._chosen[dataset, split, len(found), pick] = found
        return self._chosen[wanted]

    def card(self, name: str) -> Card:
        """The card of a model by name, with the sha256 of its weights."""
        if name not in self._cards:
            self._cards[name] = load_model(name).card if name.startswith("timm:") else locate(name).card
        return self._cards[name]


def content(role: str, card: Card) -> str:
    """What a model's name stands for, as a cell holds it: the hash of its weights and the architecture they fill."""
    return f"{role}={card.sha256} {card.arch}"


def full_name(name: str) -> str:
    """The embedded model's own name for an alias ("backbone"); other names as they are."""
    return ALIASES.get(name, name)
