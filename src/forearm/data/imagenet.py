"""ImageNet (Russakovsky et al., 2015) and Tiny ImageNet (Le and Yang, 2015): folders named after WordNet ids."""

from __future__ import annotations

from pathlib import Path

from forearm.data.batches import Pictures
from forearm.data.folder import Photos, class_names, listing, read_photos
from forearm.data.forms import known_first, known_split
from forearm.errors import InputError


def imagenet(folder: Path, split: str, *, side: int = 224, crop: float = 0.875, first: int | None = None) -> Pictures:
    """ImageNet's 1,000 classes from `train/WNID/*.JPEG` and `val/WNID/*.JPEG`; `test` is `val`, whose labels are public.

    Classes are the WordNet ids in sorted order, the order of every published classifier; the folders must be 1,000, or `wnids.txt`
    must name the 1,000 of which they are some (for a part with its own numbers there is "folder(path=...)"). Names come from
    `words.txt` or `LOC_synset_mapping.txt`. One photo of each class in turn, so that the `first` so many hold all classes evenly; only
    these are decoded. All of `val` at 224 takes 7.0 GiB of memory; more than 8 GiB (all of `train`) is refused and needs `first`.
    """
    known_split("imagenet", split)
    place = folder / ("train" if split == "train" else "val")
    if not place.is_dir():
        raise InputError(f"{folder}: no ImageNet {split} files; {place.name}/WNID/*.JPEG, for example {place.name}/n01440764/1.JPEG")
    found = class_names([folder / "train", folder / "val"])
    wnids = known_wnids(folder, found)
    if len(wnids) != 1000:
        raise InputError(f"{folder}: {len(wnids)} classes; ImageNet's 1000 (or wnids.txt), or folder(path='{folder}') for a part of it")
    return read_photos(listing(place, wnids, first), word_names(folder, wnids), side, crop)


def tiny_imagenet(folder: Path, split: str, *, side: int = 64, first: int | None = None) -> Pictures:
    """Tiny ImageNet's 200 classes: 100,000 `train` pictures, and as `test` its 10,000 of `val`, `n 3 64 64`.

    From `train/WNID/images/*.JPEG` and `val/images/*.JPEG` with `val_annotations.txt`, in `folder` or in `tiny-imagenet-200` below it.
    Classes are the WordNet ids in sorted order, as networks trained on the folders have them, and not in the order of `wnids.txt`.
    Training pictures come one of each class in turn, test pictures in the order of the table.
    """
    known_split("tiny_imagenet", split)
    known_first(first)
    below = folder / "tiny-imagenet-200"
    place = below if below.is_dir() else folder
    notes = place / "val" / "val_annotations.txt"
    needed = place / "train" if split == "train" else notes
    if not needed.exists():
        raise InputError(
            f"{folder}: no Tiny ImageNet {split} files; wnids.txt, train/WNID/images and val/val_annotations.txt, as in tiny-imagenet-200"
        )
    wnids = known_wnids(place, () if (place / "wnids.txt").is_file() else class_names([place / "train"]))
    photos = listing(place / "train", wnids, first, "images") if split == "train" else _annotated(notes, wnids, first)
    return read_photos(photos, word_names(place, wnids), side)


def _annotated(notes: Path, wnids: tuple[str, ...], first: int | None) -> Photos:
    """The validation pictures of a table with a file name and a WordNet id a line."""
    label = {wnid: i for i, wnid in enumerate(wnids)}
    photos = []
    for number, line in enumerate(_lines(notes)[:first], 1):
        name, _, rest = line.partition("\t")
        wnid = rest.partition("\t")[0]
        if wnid not in label or not name or Path(name).name != name:
            raise InputError(
                f"{notes}: line {number}: {line[:60]!r}; a file and one of the {len(wnids)} ids, split by tabs, for example val_0.JPEG n01443537"
            )
        photos.append((notes.parent / "images" / name, label[wnid]))
    return photos


def known_wnids(folder: Path, found: tuple[str, ...]) -> tuple[str, ...]:
    """The sorted ids of `wnids.txt`, of which those found must be some (InputError); without that file those found."""
    file = folder / "wnids.txt"
    if not file.is_file():
        return found
    wnids = tuple(sorted(set(filter(None, map(str.strip, _lines(file))))))
    strange = sorted(set(found) - set(wnids))
    if strange or not wnids:
        raise InputError(f"{folder}: the folder {', '.join(strange[:3]) or 'list is empty'}; only ids of wnids.txt, for example n01440764")
    return wnids


def word_names(folder: Path, wnids: tuple[str, ...]) -> tuple[str, ...]:
    """The first word for each id from `words.txt` (tabs) or `LOC_synset_mapping.txt` (spaces); the id itself where it has none."""
    names: dict[str, str] = {}
    for file, gap in ((folder / "LOC_synset_mapping.txt", " "), (folder / "words.txt", "\t")):
        if file.is_file():
            for line in _lines(file):
                wnid, _, words = line.partition(gap)
                names[wnid] = words.split(",")[0].strip().replace(" ", "_")
    return tuple(names.get(wnid) or wnid for wnid in wnids)


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: not readable ({error}); UTF-8 text, as published") from None
