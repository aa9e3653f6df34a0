"""What the shell completes: names from tables that need no torch, so that it answers at once. Where nothing fits, shells offer files."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress


def attacks(incomplete: str) -> list[str]:
    """Attacks."""
    from forearm.attacks.table import ATTACKS

    return fitting(ATTACKS, incomplete)


def protectors(incomplete: str) -> list[str]:
    """Defences before release."""
    from forearm.defenses.preemptive.protector import PREEMPTIVE

    return fitting(PREEMPTIVE, incomplete)


def models(incomplete: str) -> list[str]:
    """Models that load by their name alone: embedded ones, those of the zoo that are here, and public ones."""
    from importlib import resources

    from forearm.errors import ForearmError
    from forearm.models.foreign import FOREIGN
    from forearm.models.zoo import zoo

    names = [path.name.removesuffix(".toml") for path in resources.files("forearm.models").joinpath("cards").iterdir()]
    with suppress(ForearmError):  # a FOREARM_ZOO that is nowhere; the command itself will say so
        names += zoo()
    return fitting([*names, *(name for name, source in FOREIGN.items() if source.file)], incomplete)


def fetchable(incomplete: str) -> list[str]:
    """Data sets that can be fetched."""
    from forearm.data.catalogue import CATALOGUE

    return fitting(CATALOGUE, incomplete)


def among(*words: str) -> Callable[[str], list[str]]:
    """One of a few words."""

    def complete(incomplete: str) -> list[str]:
        return fitting(words, incomplete)

    return complete


def fitting(names: Iterable[str], incomplete: str) -> list[str]:
    """The names that begin as the user did."""
    return sorted(name for name in names if name.startswith(incomplete))
