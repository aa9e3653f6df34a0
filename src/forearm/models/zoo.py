"""The zoo: trained models that are too many for the package, one folder each (`card.toml` and its weights), by name.

They lie in `zoo/` of the project's repository: a checkout finds them there, an installed package where `FOREARM_ZOO` says.
"""

from __future__ import annotations

import os
from pathlib import Path

from forearm.errors import ArtifactError

ZOO = ("cifar10_denoiser", "cifar10_mid", "cifar10_resnext", "cifar10_vit")  # each trained by recipes/NAME.toml


def zoo_folder() -> Path | None:
    """Where the zoo lies: `$FOREARM_ZOO`, or `zoo` of the checkout that this package is run from; None where there is neither.

    ArtifactError where `FOREARM_ZOO` names no folder.
    """
    if given := os.environ.get("FOREARM_ZOO"):
        if not Path(given).is_dir():
            raise ArtifactError(f"FOREARM_ZOO: got {given!r}, no folder; one that holds NAME/card.toml, for example the repository's zoo")
        return Path(given)
    checkout = Path(__file__).resolve().parents[3]
    found = checkout / "zoo"
    return found if (checkout / "pyproject.toml").is_file() and found.is_dir() else None


def zoo() -> tuple[str, ...]:
    """The names of the models that are in the zoo here, whether or not `ZOO` knows them."""
    folder = zoo_folder()
    return () if folder is None else tuple(sorted(card.parent.name for card in folder.glob("*/card.toml")))


def zoo_card(name: str) -> Path | None:
    """The card.toml of the zoo's model `name`; None for a name that no zoo has. ArtifactError for one that is not here."""
    folder = zoo_folder()
    if folder is not None and name in zoo():
        return folder / name / "card.toml"
    if name not in ZOO:
        return None
    where = "FOREARM_ZOO names none and this is no checkout" if folder is None else f"not in {folder}"
    raise ArtifactError(
        f"{name}: a model of the zoo, which is not here ({where}); zoo/{name} of the project's repository with FOREARM_ZOO=/path/to/zoo, "
        f"or train it by recipes/{name}.toml"
    )


def data_folder() -> Path:
    """Where data sets and public checkpoints lie, as `data.sets` has it: `$FOREARM_DATA`, or `../shared/data` beside the project."""
    given = os.environ.get("FOREARM_DATA")
    return Path(given) if given else Path(__file__).resolve().parents[4] / "shared" / "data"
