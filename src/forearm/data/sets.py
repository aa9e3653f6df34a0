"""The table of data sets: name -> reader(folder, split) of labelled pictures."""

from __future__ import annotations

import os
from pathlib import Path

from forearm.data.batches import Pictures
from forearm.data.catalogue import CATALOGUE
from forearm.errors import InputError, SpecError
from forearm.registry import accepts, bind, parse

DATASETS: dict[str, str] = {
    "cifar10": "forearm.data.cifar:cifar10",
    "cifar10_c": "forearm.data.corrupted:cifar10_c",
    "cifar100": "forearm.data.cifar:cifar100",
    "mnist": "forearm.data.mnist:mnist",
    "fashion_mnist": "forearm.data.mnist:fashion_mnist",
    "svhn": "forearm.data.svhn:svhn",
    "tiny_imagenet": "forearm.data.imagenet:tiny_imagenet",
    "imagenet": "forearm.data.imagenet:imagenet",
    "imagenette": "forearm.data.folder:imagenette",
    "folder": "forearm.data.folder:folder",
    "csv": "forearm.data.folder:table",
    "npz": "forearm.data.arrays:npz",
}

MADE_FROM = {"cifar10_c": "cifar10"}  # sets that need no folder of their own where this one lies beside it


def root() -> Path:
    """Where the data sets lie: `$FOREARM_DATA`, or `../shared/data` beside the project."""
    given = os.environ.get("FOREARM_DATA")
    return Path(given) if given else Path(__file__).resolve().parents[4] / "shared" / "data"


def load(spec: str, split: str, folder: Path | None = None, *, first: int | None = None) -> Pictures:
    """A data set by name, e.g. "cifar10" or "imagenette(side=160)", from `folder` or from its place under `root()`.

    Sets of the user's own say where they lie: "folder(path='photos')", relative to `folder` or else to the working directory.
    `first`: only the first so many pictures; no others are decoded where each is a file of its own. The position of a picture does
    not depend on it. SpecError for a name, option or split that does not exist, InputError where the files are not there or not good.
    """
    name = parse(spec)[0]
    read = bind(DATASETS, spec)
    own = "path" in parse(spec)[1]
    if folder is None and not own and accepts(read, "path"):
        raise SpecError(f"{name}: got no path; where the data lies, for example \"{name}(path='photos')\"")
    where = folder or (Path() if own else root() / name)
    if not where.is_dir() and not (name in MADE_FROM and (where.parent / MADE_FROM[name]).is_dir()):
        fetch = f", or `forearm data fetch {name}`" if name in CATALOGUE and CATALOGUE[name].files else ""
        raise InputError(f"{where}: no such folder; the data set {name!r}, or its place in FOREARM_DATA=/path/to/data{fetch}")
    pictures = read(where, split, first=first) if accepts(read, "first") else read(where, split)
    assert isinstance(pictures, Pictures)
    return pictures.first(first)
