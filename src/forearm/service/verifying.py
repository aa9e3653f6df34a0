"""Measure an armed picture against its original, as `forearm verify` does, with models that stay loaded."""

from __future__ import annotations

from dataclasses import dataclass, field

from forearm.attacks.table import ATTACKS
from forearm.core.threat import Threat
from forearm.errors import SpecError
from forearm.images.picture import Picture
from forearm.images.provenance import Tag
from forearm.jobs.armory import Armory
from forearm.jobs.compare import Check, compared
from forearm.jobs.pair import Role
from forearm.registry import bind


@dataclass(frozen=True, slots=True)
class Inspector:
    """A verifier over an armoury. Only its own models and the embedded targets are used: a file's tag names none.

    `attack` by name; `targets`: None for the embedded ones. Cost a picture: twice the attack's passes for each target.
    """

    armory: Armory
    attack: str = "pgd(steps=20)"
    targets: tuple[str, ...] | None = None
    _roles: dict[str, Role] = field(default_factory=dict, repr=False, compare=False)

    def __call__(self, before: Picture, after: Picture, tag: Tag | None, label: str | None) -> Check:
        """InputError for pictures of two sizes or modes, SpecError for an unknown label."""
        height, width = before.pixels.shape[:2]
        return compared(
            before,
            after,
            self.armory,
            self._roles,
            bind(ATTACKS, self.attack),
            threat=threat_of(tag) or self.armory.pair(height, width).threat,
            label=None if label is None else self.armory.class_index(label, height, width),
            tagged=tag is not None,
            targets=self.targets,
        )


def threat_of(tag: Tag | None) -> Threat | None:
    """The threat that a tag names; None where it names none that can be understood."""
    try:
        found = Threat.parse(str((tag or {})["threat"]))
    except (KeyError, SpecError):
        return None
    return None if found.targeted else found
