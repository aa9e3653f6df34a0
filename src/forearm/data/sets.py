"""The table of data sets: name -> reader(folder, split) of labelled pictures."""

from __future__ import annotations

import os
from pathlib import Path

from forearm.data.batches import Pictures
from forearm.errors import InputError
from forearm.registry import bind

DATASETS: dict[str, str] = {
    "cifar10": "forearm.data.cifar:cifar10",
    "imagenette": "forearm.data.folder:imagenette",
}


def root() -> Path:
    """Where the data sets lie: `$FOREARM_DATA`, or `../shared/data` beside the project."""
    given = os.environ.get("FOREARM_DATA")
    return Path(given) if given else Path(__file__).resolve().parents[4] / "shared" / "data"


def load(spec: str, split: str, folder: Path | None = None) -> Pictures:
    """A data set by name, e.g. "cifar10" or "imagenette(side=160)", from `folder` or from its place under `root()`."""
    name = spec.partition("(")[0].strip()
    where = root() / name if folder is None else folder
    read = bind(DATASETS, spec)
    if not where.is_dir():
        raise InputError(f"{where}: no such folder; the data set {name!r}, or its place in FOREARM_DATA=/path/to/data")
    pictures = read(where, split)
    assert isinstance(pictures, Pictures)
    return pictures
