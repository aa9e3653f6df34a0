"""One of n parts of a folder's files, chosen by their names alone: any machine knows its part without asking another."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass

from forearm.errors import SpecError


@dataclass(frozen=True, slots=True)
class Shard:
    """Part `number` (from 1) of `count`. The parts are disjoint, and together they hold every name."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """A shard as the command line writes it, "2/4". SpecError for anything else."""
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise SpecError(f"shard: got {text!r}; i/n with i from 1 to n, for example '2/4'")
        return cls(int(match[1]), int(match[2]))

    def holds(self, name: str) -> bool:
        """Whether the file `name` (in the mirrored tree) is of this part: the first 64 bits of the name's sha256, modulo `count`."""
        digest = hashlib.sha256(os.fsencode(name)).digest()
        return int.from_bytes(digest[:8], "big") % self.count == self.number - 1

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"
