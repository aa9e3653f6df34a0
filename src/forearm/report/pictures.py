"""Before, after and difference of released pictures, as PNG inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from forearm.errors import ForearmError
from forearm.evaluate.cell import Cell
from forearm.evaluate.chosen import Chosen, choose
from forearm.evaluate.store import Store, release_key
from forearm.report.compare import GAIN, difference
from forearm.report.findings import Bench

SHOWN = 4  # the first pictures of each release: chosen before anything is known of them
LONGEST = 256  # pixels of a shown edge; larger pictures are shown smaller

Pixels = NDArray[np.uint8]
Find = Callable[[Cell], Chosen]


@dataclass(frozen=True, slots=True)
class Shown:
    """One picture as three data URIs, and what to say of it. side: its width on the page in CSS pixels."""

    name: str
    before: str
    after: str
    change: str
    size: str
    side: int


@dataclass(frozen=True, slots=True)
class Release:
    """The first pictures of one release."""

    title: str
    pictures: tuple[Shown, ...]


@dataclass(frozen=True, slots=True)
class Gallery:
    """All releases of a store; `absent`: a sentence for each that cannot be shown."""

    releases: tuple[Release, ...]
    absent: tuple[str, ...]


def find(folder: Path | None = None) -> Find:
    """Where the originals of a cell are looked up: in its data set, below `folder` or where `data.sets` looks."""

    def chosen(cell: Cell) -> Chosen:
        where = None if folder is None else folder / cell.dataset.partition("(")[0]
        return choose(cell.dataset, cell.split, cell.examples, cell.pick, where)

    return chosen


def gallery(store: Store, benches: Sequence[Bench], originals: Find) -> Gallery:
    """The first pictures of every release that the store still holds, beside their originals where the data set is the audited one."""
    releases, absent = [], []
    seen = set()
    for cell in (entry.cell for bench in benches for entry in bench.entries):
        if not cell.backbone or (key := release_key(cell)) in seen:
            continue
        seen.add(key)
        title = f"{cell.defense.partition('+')[0]} on {cell.dataset}, within {cell.release_threat}, backbone {cell.backbone}"
        released = store.released(cell)
        try:
            chosen = None if released is None else originals(cell)
        except ForearmError as error:
            absent.append(f"{title}: the originals cannot be read ({error}).")
            continue
        if released is None or chosen is None:
            absent.append(f"{title}: the store does not hold the released pictures.")
        elif f"pictures={chosen.sha256}" not in cell.contents:
            absent.append(f"{title}: the data set here is not the one that was audited.")
        else:
            releases.append(Release(title, tuple(_shown(chosen, released, number) for number in range(min(SHOWN, len(released))))))
    return Gallery(tuple(releases), tuple(absent))


def _shown(chosen: Chosen, released: Pixels, number: int) -> Shown:
    before, after = (np.ascontiguousarray(pixels[number].transpose(1, 2, 0)) for pixels in (chosen.pixels, released))
    change = np.abs(after.astype(np.int16) - before.astype(np.int16))
    height, width = before.shape[:2]
    return Shown(
        name=f"picture {int(chosen.ids[number])}, {chosen.classes[int(chosen.y[number])]}",
        before=_uri(before),
        after=_uri(after),
        change=_uri(difference(before, after)),
        size=f"at most {int(change.max())} levels, on average {change.mean():.2f}; the difference is shown {GAIN} times as large, around grey",
        side=round(min(LONGEST, max(128, width)) * min(1.0, width / height)),
    )


def _uri(pixels: Pixels) -> str:
    picture = Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels)
    if max(picture.size) > LONGEST:
        picture.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    held = io.BytesIO()
    picture.save(held, "PNG", optimize=False)
    return f"data:image/png;base64,{base64.b64encode(held.getvalue()).decode('ascii')}"
