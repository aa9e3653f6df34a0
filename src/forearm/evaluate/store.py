"""The store of an audit: rows, releases and masking verdicts under the keys of what decides them. No times, no hosts, no worker counts.

    cells/KEY/cell.json                   the cell; it is written last, so it says that all blocks are there
    cells/KEY/block-00000.parquet         the rows of one block
    releases/KEY/block-00000.safetensors  the protected pictures of one block
    masking/KEY.json                      a masking verdict and what it is about

Files appear whole or not at all, and equal runs under equal versions leave equal bytes, however often they were broken off and however many workers
they had. A block holds a sha256 of itself, checked before anything parses it (readers of Parquet may crash on damaged files), and the versions that
computed it, which are no part of any key.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import io
import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

import forearm
from forearm.errors import ArtifactError, SpecError
from forearm.evaluate.cell import SCHEMA, Cell, canonical, cell_from, key_of
from forearm.evaluate.defense import preemptive_part, students
from forearm.images.journal import OutputError
from forearm.images.write import commit, discard, stage, sweep

COLUMNS = {
    "id": pl.Int64,
    "y": pl.Int32,
    "clean": pl.Boolean,
    "protected": pl.Boolean,
    "robust": pl.Boolean,
    "distance": pl.Float32,
    "margin": pl.Float32,
    "changed": pl.Boolean,
}
MARK = "sha256 of this file with zeros here: "
SEALED = re.compile(MARK.encode() + rb"[0-9a-f]{64}")
MADE = re.compile(rb"; made with ([ -:<-~]+);")
Pixels = NDArray[np.uint8]
Rows = Mapping[str, NDArray[Any]]


class Store:
    """What audits wrote under one folder. Reading needs no lock; writing is done by one run at a time, inside `writing()`."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def cells(self) -> list[Cell]:
        """The complete cells, sorted by key. ArtifactError for a cell.json that is not as it was written."""
        return [cell_from(_json(file).get("cell", {}), str(file)) for file in sorted(self.path.glob("cells/*/cell.json"))]

    def has(self, cell: Cell) -> bool:
        """Whether the cell is complete."""
        try:
            said = _json(self._cell_file(cell)).get("cell")
        except ArtifactError:
            return False
        return said == json.loads(canonical(cell.record)) and all(self.there(cell, number) for number in range(cell.blocks))

    def rows(self, cell: Cell) -> pl.DataFrame:
        """The rows of a complete cell, sorted by id: the columns of `COLUMNS`. ArtifactError where there are none, or changed ones."""
        if not self.has(cell):
            raise ArtifactError(f"{self.path}: no complete cell {cell.key[:12]} ({cell}); `forearm audit` with its matrix makes it")
        frames = []
        for number in range(cell.blocks):
            file = self._block_file(cell, number)
            frame = frame_from(file.read_bytes(), f"{cell.key}/{number}")
            if frame is None:
                raise ArtifactError(f"{file}: not as it was written; `forearm audit` with its matrix makes it anew")
            frames.append(frame)
        return pl.concat(frames).sort("id")

    def made_with(self, cell: Cell) -> tuple[str, ...]:
        """The versions that computed a cell's blocks, each once: one, or several where an audit went on after an update; "" for a block without.

        ArtifactError where a block is not as it was written.
        """
        found = []
        for number in range(cell.blocks):
            file = self._block_file(cell, number)
            data = file.read_bytes() if file.is_file() else b""
            if not _sealed(data, f"{cell.key}/{number}"):
                raise ArtifactError(f"{file}: not as it was written; `forearm audit` with its matrix makes it anew")
            said = MADE.search(data)
            found.append("" if said is None else said[1].decode())
        return tuple(dict.fromkeys(found))

    def masking(self) -> list[dict[str, Any]]:
        """All masking verdicts, sorted by key: {"about": {dataset, model, defense, ...}, "verdict": {...}}."""
        return [_json(file) for file in sorted(self.path.glob("masking/*.json"))]

    def released(self, cell: Cell) -> Pixels | None:
        """The protected pictures of a cell, uint8 `n c h w` in the order of its rows; None for a defence that releases them as they are, or
        where a block is not there.
        """
        blocks = [self.release(cell, number) for number in range(cell.blocks)] if preemptive_part(cell.defense) != "none" else [None]
        return np.concatenate([block for block in blocks if block is not None]) if all(block is not None for block in blocks) else None

    def release(self, cell: Cell, number: int) -> Pixels | None:
        """One block of a release; None where it is not there, or not as it was written."""
        file = self._release_file(cell, number)
        try:
            with safe_open(file, "numpy") as held:
                pixels: Pixels = held.get_tensor("pixels")
                return pixels if (held.metadata() or {}).get("sha256") == _pixel_sum(pixels) else None
        except (OSError, SafetensorError):
            return None

    def good(self, cell: Cell, number: int, ids: NDArray[np.int64]) -> bool:
        """Whether a block is there as it was written, with the rows of these examples."""
        file = self._block_file(cell, number)
        frame = frame_from(file.read_bytes(), f"{cell.key}/{number}") if file.is_file() else None
        return frame is not None and np.array_equal(frame["id"].to_numpy(), ids)

    def there(self, cell: Cell, number: int) -> bool:
        """Whether a block has a file at all: one that is there and not `good` was damaged."""
        return self._block_file(cell, number).is_file()

    @contextlib.contextmanager
    def writing(self) -> Iterator[None]:
        """Make and lock the folder, and remove what a killed run left half-written. SpecError where another run writes, OutputError where
        nobody can.
        """
        try:
            for name in ("cells", "releases", "masking"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
            handle = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise OutputError(f"{self.path}: cannot be written ({error.strerror}); a folder, for example --store runs/") from None
        try:
            self._lock(handle)
            sweep([self.path / "masking", *self.path.glob("cells/*"), *self.path.glob("releases/*")])
            yield
        finally:
            os.close(handle)

    def _lock(self, handle: int) -> None:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise SpecError(f"{self.path}: another audit is writing to this store; one at a time, or another folder") from None

    def put_block(self, cell: Cell, number: int, rows: Rows) -> None:
        """Keep the rows of one block."""
        _write(self._block_file(cell, number), frame_bytes(rows, f"{cell.key}/{number}"))

    def put_release(self, cell: Cell, number: int, pixels: Pixels) -> None:
        """Keep one block of protected pictures."""
        _write(self._release_file(cell, number), save({"pixels": pixels}, {"sha256": _pixel_sum(pixels)}))

    def finish(self, cell: Cell) -> None:
        """Say that a cell whose blocks are all there is complete."""
        _write(self._cell_file(cell), _text({"schema": SCHEMA, "cell": cell.record}))

    def unfinish(self, cell: Cell) -> None:
        """Say that a cell is no longer complete, before its damaged blocks are made anew."""
        discard(self._cell_file(cell))

    def judged(self, about: Mapping[str, Any]) -> bool:
        """Whether there is a masking verdict about this, as it was written."""
        try:
            return _json(self._masking_file(about)).get("about") == dict(about)
        except ArtifactError:
            return False

    def put_masking(self, about: Mapping[str, Any], verdict: Mapping[str, Any]) -> None:
        """Keep a masking verdict."""
        _write(self._masking_file(about), _text({"schema": SCHEMA, "about": dict(about), "verdict": dict(verdict)}))

    def _cell_file(self, cell: Cell) -> Path:
        return self.path / "cells" / cell.key / "cell.json"

    def _block_file(self, cell: Cell, number: int) -> Path:
        return self.path / "cells" / cell.key / f"block-{number:05}.parquet"

    def _release_file(self, cell: Cell, number: int) -> Path:
        return self.path / "releases" / release_key(cell) / f"block-{number:05}.safetensors"

    def _masking_file(self, about: Mapping[str, Any]) -> Path:
        return self.path / "masking" / f"{key_of(about)}.json"


def release_key(cell: Cell) -> str:
    """The key of what is released: all fields that decide the protected pictures, whoever attacks them on whatever models."""
    names = ("dataset", "split", "examples", "pick", "seed", "labels", "backbone", "labeller", "release_threat")
    before = preemptive_part(cell.defense)
    others = ("model=", "source=") if students(before) else ("model=", "source=", "student=")
    contents = [content for content in cell.contents if not content.startswith(others)]
    return key_of({name: getattr(cell, name) for name in names} | {"release": before, "contents": contents})


def frame_bytes(rows: Rows, place: str) -> bytes:
    """Rows as Parquet, the same bytes for the same rows and versions.

    Its metadata holds the sha256 of `place` and of the file with 64 zeros in that place, and after it the versions that make it.
    """
    held = io.BytesIO()
    frame = pl.DataFrame({name: pl.Series(name, rows[name]).cast(kind) for name, kind in COLUMNS.items()})
    metadata = {"forearm": f"{MARK}{'0' * 64}; made with {versions()};"}
    frame.write_parquet(held, compression="zstd", compression_level=3, statistics=False, row_group_size=len(frame), metadata=metadata)
    data = held.getvalue()
    return SEALED.sub(_seal(data, place), data)


def frame_from(data: bytes, place: str) -> pl.DataFrame | None:
    """The rows that `frame_bytes` wrote for `place`; None where the bytes are others."""
    if not _sealed(data, place):
        return None
    frame = pl.read_parquet(io.BytesIO(data))
    return frame if dict(frame.schema) == COLUMNS else None


def versions() -> str:
    """What computes rows here: "forearm 0.1.0, torch 2.13.0+cpu"."""
    return f"forearm {forearm.__version__}, torch {importlib.metadata.version('torch')}"


def _sealed(data: bytes, place: str) -> bool:
    """Whether these are the bytes that `frame_bytes` wrote for `place`."""
    found = SEALED.search(data)
    return found is not None and found[0] == _seal(SEALED.sub(f"{MARK}{'0' * 64}".encode(), data), place)


def _seal(data: bytes, place: str) -> bytes:
    return f"{MARK}{hashlib.sha256(place.encode() + data).hexdigest()}".encode()


def _pixel_sum(pixels: Pixels) -> str:
    return hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()


def _text(values: Mapping[str, Any]) -> bytes:
    return canonical(values).encode() + b"\n"


def _json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="ascii"))
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{file}: not readable ({type(error).__name__}); as `forearm audit` writes it") from None
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise ArtifactError(f"{file}: of another schema; schema {SCHEMA}, as this version of `forearm audit` writes it")
    return values


def _write(file: Path, data: bytes) -> None:
    try:
        commit(stage(file, data, 0o644), file)
    except OSError as error:
        raise OutputError(f"{file}: cannot be written ({error.strerror}); a disk with space, then the same command again") from None
