"""One cell of the bench: a model under a defence, attacked in one way, on chosen pictures. Strings and numbers only; its hash is its key."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from forearm.errors import ArtifactError

# Of what is stored and of how it is computed: a change of either makes every key a new one. What moves the last bits of logits alone, as another
# torch does or the folded copy that AutoAttack's FAB and Square ask, is no such change: each block says which versions computed it.
SCHEMA = 1
BLOCK = 25  # examples that are worked on and stored together


@dataclass(frozen=True, slots=True)
class Cell:
    """Everything that decides the rows of one cell.

    contents: what the names stand for: "model=SHA256 ARCH", "backbone=...", "labeller=...", "pictures=SHA256" of the chosen pictures and labels.
    backbone (several as in "a+b": then "backbone 2=..." and so on are in contents too), labeller, release_threat: of the preemptive defence, "" where
    the defence has none (or asks no labeller). informed: the attacker uses the defence's `unmask` and `revert`. around: the centre of his ball.
    labels: who labels what a preemptive defence hardens. pick: "first" examples of the split, or as many at "even" distances (for data sets that lie
    sorted by class). source: the model that the attacker takes for the victim (transfer), in contents as "source=..."; "" for one who has the victim
    itself.
    """

    dataset: str
    split: str
    model: str
    defense: str
    wear: str
    attack: str
    threat: str
    examples: int
    informed: bool
    seed: int
    labels: str  # "decoupled" | "coupled" | "given"
    backbone: str
    labeller: str
    around: str  # "release" | "original"
    contents: tuple[str, ...]
    release_threat: str = ""
    pick: str = "first"
    source: str = ""

    @property
    def key(self) -> str:
        """The hex sha256 of `record` and the schema."""
        return key_of(self.record)

    @property
    def record(self) -> dict[str, Any]:
        """The fields as they are stored: without `source` where there is none, as before there could be one, so that such cells keep their keys."""
        fields = dataclasses.asdict(self)
        return fields if self.source else {name: value for name, value in fields.items() if name != "source"}

    @property
    def told(self) -> str:
        """The attack in words, with the model that it was made on where that is another than the victim."""
        return f"{self.attack}, transfer from {self.source}" if self.source else self.attack

    @property
    def blocks(self) -> int:
        """How many blocks of at most `BLOCK` examples it has."""
        return -(-self.examples // BLOCK)

    def __str__(self) -> str:
        worn = "" if self.wear == "none" else f", worn by {self.wear}"
        return f"{self.dataset}: {self.model}, {self.defense}{worn}, {self.told}, {self.threat}{', informed' if self.informed else ''}"


def backbones(spec: str) -> tuple[tuple[str, str], ...]:
    """The role and the name of each backbone in "a+b+c": ("backbone", a), ("backbone 2", b), ...; nothing for ""."""
    names = [name.strip() for name in spec.split("+")] if spec else []
    return tuple(("backbone" if k == 1 else f"backbone {k}", name) for k, name in enumerate(names, 1))


def canonical(values: Mapping[str, Any]) -> str:
    """JSON with sorted names and no spaces, in ASCII: equal values give equal bytes."""
    return json.dumps(values, sort_keys=True, separators=(",", ":"), allow_nan=False)


def key_of(values: Mapping[str, Any]) -> str:
    """The hex sha256 of `values` and the schema."""
    return hashlib.sha256(canonical({"schema": SCHEMA} | dict(values)).encode()).hexdigest()


def cell_from(values: Mapping[str, Any], where: str) -> Cell:
    """The cell with these fields; `where` is what an error names."""
    try:
        fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
        return Cell(**fields)
    except TypeError as error:
        raise ArtifactError(f"{where}: no cell ({error}); the fields {', '.join(f.name for f in dataclasses.fields(Cell))}") from None


def spans(examples: int) -> Iterator[slice]:
    """The blocks of so many examples."""
    return (slice(start, min(start + BLOCK, examples)) for start in range(0, examples, BLOCK))
