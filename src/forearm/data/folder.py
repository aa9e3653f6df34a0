"""Photos in folders: with a `labels.csv`, or one folder a class."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from itertools import islice, zip_longest
from pathlib import Path, PurePath

import torch

from forearm.data.batches import Pictures
from forearm.data.forms import known_first, known_split
from forearm.data.photos import decode, photo_files
from forearm.errors import InputError, SpecError

SPLITS = {"train": ("train",), "test": ("test", "val")}  # split -> the names its folder may have, the first one present counts
Photos = list[tuple[Path, int]]  # files and their classes


def read_photos(photos: Photos, classes: tuple[str, ...], side: int, crop: float = 1.0) -> Pictures:
    """The photos as `side` x `side` centre squares."""
    images = decode([path for path, _ in photos], side, crop)
    return Pictures(images, torch.tensor([label for _, label in photos], dtype=torch.int64), classes)


def labelled_folder(
    folder: Path, side: int, keep: Callable[[dict[str, str]], bool] = lambda _: True, *, first: int | None = None
) -> Pictures:
    """The photos that `keep` chooses from `labels.csv` (columns file, index, name), as `side` x `side` centre squares, in its order.

    Classes are numbered by the order of their index; only the `first` chosen photos are decoded.
    """
    known_first(first)
    rows = _rows(folder / "labels.csv")
    names = {int(row["index"]): row["name"] for row in rows}
    order = {index: i for i, index in enumerate(sorted(names))}
    kept = list(islice((row for row in rows if keep(row)), first))
    photos = [(_inside(folder, row["file"]), order[int(row["index"])]) for row in kept]
    return read_photos(photos, tuple(names[index] for index in sorted(names)), side)


def _rows(file: Path) -> list[dict[str, str]]:
    """The lines of a table with the columns file, index and name. InputError where it is none."""
    if not file.is_file():
        raise InputError(f"{file.parent}: no labels.csv; a table with the columns file, index and name")
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            rows = list(csv.DictReader(lines))
    except (csv.Error, UnicodeDecodeError, OSError) as error:
        raise InputError(f"{file}: not readable ({error}); UTF-8 text with the columns file, index and name") from None
    for number, row in enumerate(rows, 2):
        if not row.get("file") or not row.get("name") or not (row.get("index") or "").isdecimal():
            raise InputError(f"{file}: line {number}: no file, index and name; for example 'cat/1.jpg,281,tabby' under 'file,index,name'")
    return rows


def _inside(folder: Path, name: str) -> Path:
    """A file of the folder. InputError for a name that leads out of it."""
    if PurePath(name).is_absolute() or ".." in PurePath(name).parts:
        raise InputError(f"{folder}: the file {name!r} of labels.csv lies elsewhere; files within the folder, for example 'cat/1.jpg'")
    return folder / name


def imagenette(folder: Path, split: str, side: int = 128, *, first: int | None = None) -> Pictures:
    """Imagenette (fast.ai): `test` is its 500 photos from ImageNet's own validation set, `train` all the others.

    Most of what the publisher calls "val" are ImageNet training photos, which networks trained on ImageNet have seen: its cut is not
    used. Read from a folder with `labels.csv` (column origin), in its order, or from the published archive (`imagenette2*/train` and
    `val`, where the file names tell the origin), one photo of each class in turn. The `first` so many are decoded.
    """
    known_split("imagenette", split)
    known_first(first)
    published = [place for name in ("", "imagenette2-320", "imagenette2", "imagenette2-160") if (place := folder / name / "val").is_dir()]
    if (folder / "labels.csv").is_file() or not published:
        return labelled_folder(folder, side, lambda row: _origin(folder, row) == (split == "test"), first=first)
    place = published[0].parent
    wnids = class_names([place / "train", place / "val"])
    if not set(wnids) <= set(IMAGENETTE):
        raise InputError(f"{place}: the classes {', '.join(wnids[:3])}; Imagenette's ten, for example n01440764")
    files = [[*photo_files_of(place / "train" / w), *photo_files_of(place / "val" / w)] for w in IMAGENETTE]
    mine = [[path for path in some if path.name.startswith("ILSVRC2012_val_") == (split == "test")] for some in files]
    return read_photos(in_turn(mine, first), tuple(IMAGENETTE.values()), side)


def _origin(folder: Path, row: dict[str, str]) -> bool:
    """Whether a photo is from ImageNet's validation set."""
    if row.get("origin") not in ("ilsvrc_val", "ilsvrc_train"):
        raise InputError(f"{folder}: labels.csv has the origin {row.get('origin')!r}; ilsvrc_val or ilsvrc_train, in the column origin")
    return row["origin"] == "ilsvrc_val"


IMAGENETTE = {
    "n01440764": "tench",
    "n02102040": "English_springer",
    "n02979186": "cassette_player",
    "n03000684": "chain_saw",
    "n03028079": "church",
    "n03394916": "French_horn",
    "n03417042": "garbage_truck",
    "n03425413": "gas_pump",
    "n03445777": "golf_ball",
    "n03888257": "parachute",
}  # folder -> name, in the order of ImageNet's classes


def table(folder: Path, split: str, *, path: str = "", side: int = 224, crop: float = 1.0, first: int | None = None) -> Pictures:
    """Any photos with a `labels.csv`, for example "csv(path='photos', side=128)", in the order of the table.

    Columns: file (relative to the table), index (classes are numbered by the order of it), name, and optionally split (`train`, and
    `test` or `val`). Without a column split all photos are `test`. Centre squares of `crop` of the shorter edge at `side` pixels.
    """
    known_split("csv", split)
    known_first(first)
    where = given_path(folder, path)
    rows = _rows(where / "labels.csv")
    splits = {row.get("split") or "test" for row in rows}
    wanted = next((name for name in SPLITS[split] if name in splits), None)
    if wanted is None:
        raise InputError(f"{where}: labels.csv has no photos for {split}; {' or '.join(SPLITS[split])} in its column split")
    names = {int(row["index"]): row["name"] for row in rows}
    order = {index: i for i, index in enumerate(sorted(names))}
    mine = islice((row for row in rows if (row.get("split") or "test") == wanted), first)
    photos = [(_inside(where, row["file"]), order[int(row["index"])]) for row in mine]
    return read_photos(photos, tuple(names[index] for index in sorted(names)), side, crop)


def folder(folder: Path, split: str, *, path: str = "", side: int = 224, crop: float = 1.0, first: int | None = None) -> Pictures:
    """Any photos with one folder a class, for example "folder(path='photos', side=128)".

    `path/train/CLASS/*.jpg` and `path/test/CLASS/*.jpg` (or `val`); or `path/CLASS/*.jpg`, which is all `test`. Classes are the
    folders' names in sorted order, over all splits. One photo of each class in turn, so that the `first` so many hold all classes
    evenly; only these are decoded. Centre squares of `crop` of the shorter edge at `side` pixels.
    """
    known_split("folder", split)
    where = given_path(folder, path)
    if not where.is_dir():
        raise InputError(f"{where}: no such folder; photos with one folder a class, for example {where}/test/cat/1.jpg")
    place, every = split_folder(where, split)
    classes = class_names(every)
    return read_photos(listing(place, classes, first), classes, side, crop)


def given_path(folder: Path, path: str) -> Path:
    """Where a data set of the user's own lies: `path` within `folder`, or the folder itself."""
    if not isinstance(path, str):
        raise SpecError(f"path: got {path!r}; where the data lies, for example path='photos'")
    return folder / path


def split_folder(where: Path, split: str) -> tuple[Path, list[Path]]:
    """The folder of a split and those of all splits. A split folder holds folders; without any the whole is `test` (InputError for train)."""
    every = [where / name for name in ("train", "test", "val") if _holds_folders(where / name)]
    if not every and split == "test":
        return where, [where]
    for name in SPLITS[split]:
        if where / name in every:
            return where / name, every
    raise InputError(f"{where}: no photos for {split}; {where}/{SPLITS[split][0]}/CLASS/*.jpg, for example {SPLITS[split][0]}/cat/1.jpg")


def _holds_folders(where: Path) -> bool:
    return where.is_dir() and any(child.is_dir() for child in where.iterdir())


def class_names(folders: Sequence[Path]) -> tuple[str, ...]:
    """The names of the folders in the given ones, sorted. InputError where there are none."""
    names = {child.name for where in folders if where.is_dir() for child in where.iterdir() if child.is_dir() and child.name[0] != "."}
    if not names:
        raise InputError(f"{folders[0]}: no folders; one a class with photos in it, for example {folders[0]}/cat/1.jpg")
    return tuple(sorted(names))


def photo_files_of(folder: Path) -> list[Path]:
    """The photos of one class, by name; none where the class has no folder."""
    return photo_files(folder) if folder.is_dir() else []


def listing(place: Path, classes: Sequence[str], first: int | None, inner: str = "") -> Photos:
    """The photos of `place/CLASS/inner` with their labels, one of each class in turn; nothing is decoded."""
    known_first(first)
    if first == 0:
        return []
    photos = in_turn([photo_files_of(place / name / inner) for name in classes], first)
    if not photos:
        raise InputError(f"{place}: no photos in its folders; JPEG, PNG, WebP, BMP or TIFF files, for example {classes[0]}/1.jpg")
    return photos


def in_turn(files: Sequence[Sequence[Path]], first: int | None) -> Photos:
    """The first file of each class, then the second of each, and so on."""
    rounds = zip_longest(*([(path, label) for path in some] for label, some in enumerate(files)))
    return list(islice((photo for each in rounds for photo in each if photo is not None), first))
