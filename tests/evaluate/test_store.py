"""The store: what is written is what is read, and nothing else is."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import forearm
from forearm.errors import ArtifactError, SpecError
from forearm.evaluate.cell import BLOCK, Cell
from forearm.evaluate.store import COLUMNS, Rows, Store, frame_bytes, frame_from, release_key
from forearm.images.journal import OutputError
from tests.evaluate.test_cell import CELL

SMALL = dataclasses.replace(CELL, examples=BLOCK + 5)


def rows(first: int, n: int) -> Rows:
    rng = np.random.default_rng(first)
    flags = {name: rng.random(n) < 0.5 for name in ("clean", "protected", "robust", "changed")}
    sizes = {name: rng.random(n).astype(np.float32) for name in ("distance", "margin")}
    return {"id": np.arange(first, first + n), "y": rng.integers(0, 10, n)} | flags | sizes


def filled(path: Path, cell: Cell = SMALL) -> Store:
    store = Store(path)
    with store.writing():
        store.put_block(cell, 0, rows(0, BLOCK))
        store.put_block(cell, 1, rows(BLOCK, 5))
        store.finish(cell)
    return store


def test_rows_come_back(tmp_path: Path) -> None:
    store = filled(tmp_path)
    other = dataclasses.replace(SMALL, seed=1)
    with store.writing():
        store.put_block(other, 0, rows(0, BLOCK))
    assert store.cells() == [SMALL]
    assert store.has(SMALL)
    assert not store.has(other)
    frame = store.rows(SMALL)
    assert dict(frame.schema) == COLUMNS
    assert frame["id"].to_list() == list(range(BLOCK + 5))
    for name in COLUMNS:
        assert np.array_equal(frame[name].to_numpy(), np.concatenate([rows(0, BLOCK)[name], rows(BLOCK, 5)[name]])), name
    with pytest.raises(ArtifactError, match="no complete cell"):
        store.rows(other)


def test_equal_rows_are_equal_bytes_and_every_changed_byte_is_seen() -> None:
    data = frame_bytes(rows(0, BLOCK), "a/0")
    assert data == frame_bytes(rows(0, BLOCK), "a/0")
    assert frame_from(data, "a/0") is not None
    assert frame_from(data, "a/1") is None
    for at in range(len(data)):
        for bit in (0, 3, 7):
            changed = bytearray(data)
            changed[at] ^= 1 << bit
            assert frame_from(bytes(changed), "a/0") is None
        assert frame_from(data[:at], "a/0") is None
    assert frame_from(data + b"0", "a/0") is None


def test_a_block_says_which_versions_computed_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a cell all of them, where an audit went on after an update; the key says nothing of it."""
    store = filled(tmp_path)
    now = f"forearm {forearm.__version__}, torch {torch.__version__}"
    assert store.made_with(SMALL) == (now,)
    monkeypatch.setattr(forearm, "__version__", "99.0")
    with store.writing():
        store.put_block(SMALL, 1, rows(BLOCK, 5))
    assert store.made_with(SMALL) == (now, f"forearm 99.0, torch {torch.__version__}")
    assert len(store.rows(SMALL)) == BLOCK + 5
    monkeypatch.setattr("forearm.evaluate.store.versions", lambda: "; a = b")
    with store.writing():
        store.put_block(SMALL, 0, rows(0, BLOCK))  # as before versions were told: nothing that can be read
    assert store.made_with(SMALL)[0] == ""
    assert store.has(SMALL)
    file = tmp_path / "cells" / SMALL.key / "block-00001.parquet"
    file.write_bytes(file.read_bytes().replace(b"99.0", b"98.0"))
    with pytest.raises(ArtifactError, match="not as it was written"):
        store.made_with(SMALL)


def test_a_block_is_good_only_in_its_place_with_its_examples(tmp_path: Path) -> None:
    store = filled(tmp_path)
    ids = np.arange(BLOCK)
    assert store.good(SMALL, 0, ids)
    assert not store.good(SMALL, 0, ids + 1)
    assert not store.good(SMALL, 2, ids)
    assert not store.there(SMALL, 2)
    folder = tmp_path / "cells" / SMALL.key
    shutil.copy(folder / "block-00000.parquet", folder / "block-00001.parquet")
    assert not store.good(SMALL, 1, ids)
    assert store.there(SMALL, 1)
    with pytest.raises(ArtifactError, match=r"block-00001\.parquet: not as it was written"):
        store.rows(SMALL)


def test_a_cell_without_a_block_or_with_another_record_is_not_complete(tmp_path: Path) -> None:
    store = filled(tmp_path)
    record = tmp_path / "cells" / SMALL.key / "cell.json"
    text = record.read_text()
    for damaged in (text[:-9], text.replace("pgd", "fgd"), ""):
        record.write_text(damaged)
        assert not store.has(SMALL)
    record.write_text(text)
    assert store.has(SMALL)
    (tmp_path / "cells" / SMALL.key / "block-00001.parquet").unlink()
    assert not store.has(SMALL)


def test_releases_come_back_or_not_at_all(tmp_path: Path) -> None:
    store = Store(tmp_path)
    pixels = np.random.default_rng(0).integers(0, 256, (BLOCK + 5, 3, 4, 4), dtype=np.uint8)
    assert store.release(SMALL, 0) is None
    with store.writing():
        store.put_release(SMALL, 0, pixels[:BLOCK])
        assert store.released(SMALL) is None
        store.put_release(SMALL, 1, pixels[BLOCK:])
    assert np.array_equal(store.released(SMALL), pixels)
    assert store.released(dataclasses.replace(SMALL, defense="none")) is None
    file = tmp_path / "releases" / release_key(SMALL) / "block-00000.safetensors"
    data = file.read_bytes()
    for at in (0, 9, len(data) // 2, len(data) - 1):
        changed = bytearray(data)
        changed[at] ^= 4
        file.write_bytes(changed)
        assert store.release(SMALL, 0) is None
    file.write_bytes(data[:-7])
    assert store.release(SMALL, 0) is None


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(Cell)])
def test_a_release_is_shared_by_all_who_attack_it(field: str) -> None:
    shared = {"model": "other", "wear": "jpeg", "attack": "fgsm", "threat": "linf:1/255", "informed": False, "around": "original"}
    shared |= {"contents": ("model=other", "pictures=cd", "source=other"), "defense": "mspd+jpeg", "source": "other"}
    own = {"examples": 61, "seed": 1, "defense": "mspd(copies=2)", "contents": ("model=ab resnet", "pictures=ce")}
    if field in shared:
        assert release_key(dataclasses.replace(CELL, **{field: shared[field]})) == release_key(CELL)
    if field not in shared or field in own:
        assert release_key(dataclasses.replace(CELL, **{field: own.get(field, "another")})) != release_key(CELL)


@pytest.mark.parametrize(("before", "matters"), [("instant", True), ("mspd", False)])
def test_a_trained_writer_decides_the_release_and_a_trained_purifier_does_not(before: str, matters: bool) -> None:
    one = dataclasses.replace(CELL, defense=f"{before}+regenerate(student='mid')", contents=(*CELL.contents, "student=ab net"))
    other = dataclasses.replace(one, contents=(*CELL.contents, "student=cd net"))
    assert (release_key(one) != release_key(other)) is matters


def test_masking_verdicts_come_back(tmp_path: Path) -> None:
    store, about = Store(tmp_path), {"model": "m", "contents": ["a"]}
    with store.writing():
        assert not store.judged(about)
        store.put_masking(about, {"masked": True, "evidence": []})
    assert store.judged(about)
    assert store.masking() == [{"schema": 1, "about": about, "verdict": {"masked": True, "evidence": []}}]
    file = next((tmp_path / "masking").iterdir())
    file.write_bytes(file.read_bytes()[:-9])
    assert not store.judged(about)
    with pytest.raises(ArtifactError, match="not readable"):
        store.masking()


def test_another_schema_is_refused(tmp_path: Path) -> None:
    store = filled(tmp_path)
    file = tmp_path / "cells" / SMALL.key / "cell.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"schema": 99}))
    with pytest.raises(ArtifactError, match="of another schema"):
        store.cells()


def test_one_run_writes_at_a_time_and_sweeps_what_a_killed_one_left(tmp_path: Path) -> None:
    store = filled(tmp_path)
    left = [tmp_path / "cells" / SMALL.key / ".forearm-0123.part", tmp_path / "masking" / ".forearm-4567.part"]
    for file in left:
        file.write_bytes(b"half")
    with store.writing():
        assert not any(file.exists() for file in left)
        with pytest.raises(SpecError, match="another audit is writing"), Store(tmp_path).writing():
            pass
        assert store.has(SMALL)  # reading needs no lock
    with store.writing():
        pass


def test_killed_before_it_has_its_name_a_file_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def killed(part: Path, out: Path) -> None:
        raise KeyboardInterrupt

    store = Store(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("forearm.evaluate.store.commit", killed)
        with pytest.raises(KeyboardInterrupt), store.writing():
            store.put_block(SMALL, 0, rows(0, BLOCK))
    assert not store.there(SMALL, 0)
    assert len(list(tmp_path.rglob("*.part"))) == 1
    filled(tmp_path)
    assert not list(tmp_path.rglob("*.part"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(OutputError, match="cannot be written"), Store(tmp_path / "runs").writing():
        pass


def test_a_file_in_the_way_is_told(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    with pytest.raises(OutputError, match="runs: cannot be written"), Store(tmp_path / "runs").writing():
        pass
