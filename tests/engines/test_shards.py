"""Shards: disjoint, complete, side by side, and together what one run leaves."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from forearm.errors import SpecError
from forearm.images.folder import find
from forearm.images.journal import History, Journal, Line, journal_path, journals, read, read_all
from forearm.images.shard import Shard
from forearm.images.write import stage, temporary
from forearm.jobs.plan import ProtectJob, survey
from forearm.jobs.protect import protect
from forearm.jobs.verify import pairings
from tests.jobs.armourers import Fake
from tests.jobs.photos import album, journal, tree

COUNT = 3


def job_of(folder: Path, shard: Shard | None = None, **options: Any) -> ProtectJob:
    return dataclasses.replace(ProtectJob((folder / "in",), folder / "out", jobs=1, shard=shard), **options)


def merged(root: Path) -> dict[str, dict[str, Any]]:
    """The last line of each file over all journals, without what differs from run to run."""
    lines = History(read_all(root)).last
    return {
        name: {"schema": 1} | {k: v for k, v in dataclasses.asdict(line).items() if k not in ("seconds", "source")}
        for name, line in lines.items()
    }


@given(st.lists(st.text(min_size=1), unique=True, min_size=1), st.integers(1, 9))
def test_parts_are_disjoint_and_complete(names: list[str], count: int) -> None:
    names = [name for name in names if name.isprintable()]
    parts = [[name for name in names if Shard(number, count).holds(name)] for number in range(1, count + 1)]
    assert sorted(name for part in parts for name in part) == sorted(names)


def test_parts_are_about_equal_and_the_same_everywhere() -> None:
    names = [f"{number:05}.png" for number in range(4000)]
    sizes = [sum(Shard(number, 4).holds(name) for name in names) for number in range(1, 5)]
    assert min(sizes) > 900
    assert [number for number in range(1, 5) if Shard(number, 4).holds("summer/beach.jpg")] == [2]  # a value that must never change


@pytest.mark.parametrize("text", ["", "1", "0/4", "5/4", "-1/4", "1/0", "a/b", "1/4/2", "1.5/4", "1 of 4"])
def test_a_shard_that_is_none_is_told(text: str) -> None:
    with pytest.raises(SpecError, match="for example '2/4'"):
        Shard.parse(text)
    assert str(Shard.parse(" 2/4 ")) == "2/4"


def test_shards_together_leave_what_one_run_leaves(tmp_path: Path) -> None:
    album(tmp_path / "in")
    (tmp_path / "in/notes.txt").write_text("no picture")
    (tmp_path / "in/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    protect(job_of(tmp_path, out=tmp_path / "whole"), Fake())
    for number in range(1, COUNT + 1):
        summary = protect(job_of(tmp_path, Shard(number, COUNT)), Fake())
        own = {line.file for line in read(journal_path(tmp_path / "out", Shard(number, COUNT)))}
        assert own == {entry.name for entry in find([tmp_path / "in"]) if Shard(number, COUNT).holds(entry.name)}
        assert len(summary.armed) + len(summary.skipped) + len(summary.failed) == len(own)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert merged(tmp_path / "out") == journal(tmp_path / "whole")
    fake = Fake()
    for shard in (None, Shard(2, COUNT), Shard(1, 2)):  # whole, the same, and of another count: nothing is left to do
        assert not protect(job_of(tmp_path, shard), fake).armed
    assert fake.batches == []
    assert read(journal_path(tmp_path / "out")) == []
    assert len(pairings(tmp_path / "out")) == 8


def test_the_journal_that_was_written_last_counts(tmp_path: Path) -> None:
    armed = [Line("a.png", "0" * 64, "armed", out="a.png", out_sha256=str(number) * 64) for number in range(3)]
    shard = Shard(1, 1)
    for number, where in ((0, shard), (1, None), (2, shard)):
        with Journal(tmp_path, where) as open_journal:
            open_journal.record(armed[number])
        path = journal_path(tmp_path, where)
        os.utime(path, (1000 + number, 1000 + number))
        assert History(read_all(tmp_path)).armed["a.png"] == armed[number]
    (tmp_path / ".forearm/journal-1-of-1.000010.jsonl").write_bytes(armed[0].text().encode() + b"\n")
    (tmp_path / ".forearm/journal-1-of-1.000009.jsonl").write_bytes(armed[1].text().encode() + b"\n")
    (tmp_path / ".forearm/journal-x.jsonl").write_bytes(armed[1].text().encode() + b"\n")
    names = ["journal.jsonl", "journal-1-of-1.jsonl", "journal-1-of-1.000009.jsonl", "journal-1-of-1.000010.jsonl"]
    assert [path.name for path in journals(tmp_path)] == names
    assert [path.name for path in journals(tmp_path, Shard(2, 2))] == names
    (tmp_path / ".forearm/journal-1-of-2.jsonl").write_bytes(b"")
    assert "journal-1-of-2.jsonl" not in [path.name for path in journals(tmp_path, Shard(2, 2))]


def test_shards_of_one_count_run_side_by_side_and_nothing_else_does(tmp_path: Path) -> None:
    with Journal(tmp_path, Shard(1, 2)), Journal(tmp_path, Shard(2, 2)):
        for other in (None, Shard(1, 2), Shard(1, 3)):
            with pytest.raises(SpecError, match="another run"):
                Journal(tmp_path, other)
    with Journal(tmp_path), pytest.raises(SpecError, match="another run"):
        Journal(tmp_path, Shard(1, 2))
    Journal(tmp_path, Shard(1, 3)).__exit__(None, None, None)


def test_a_shard_sweeps_its_own_half_files_alone(tmp_path: Path) -> None:
    album(tmp_path / "in", 6)
    outs = [tmp_path / "out" / entry.name for entry in find([tmp_path / "in"])]
    parts = {out.relative_to(tmp_path / "out").as_posix(): stage(out, b"half", 0o644) for out in outs}
    shard = Shard(1, 2)
    protect(job_of(tmp_path, shard, dry_run=False), Fake())
    for name, part in parts.items():
        assert part == temporary(tmp_path / "out" / name)
        assert part.exists() == (not shard.holds(name))


def test_what_cannot_work_is_told_to_every_shard(tmp_path: Path) -> None:
    album(tmp_path / "in", 2)
    (tmp_path / "labels.csv").write_text("file,label\nnowhere.png,3\n")
    for number in (1, 2):
        with pytest.raises(SpecError, match="not among the inputs"):
            survey(job_of(tmp_path, Shard(number, 2), labels=tmp_path / "labels.csv"))


def test_shards_in_place_leave_what_one_run_leaves(tmp_path: Path) -> None:
    for name in ("one", "two"):
        album(tmp_path / name / "in", 6)
    place = {"out": None, "in_place": True}
    protect(job_of(tmp_path / "one", **place, backup=tmp_path / "one/originals"), Fake())
    for number in (1, 2):
        protect(job_of(tmp_path / "two", Shard(number, 2), **place, backup=tmp_path / "two/originals"), Fake())
        time.sleep(0.01)
    assert tree(tmp_path / "one/in") == tree(tmp_path / "two/in")
    assert tree(tmp_path / "one/originals") == tree(tmp_path / "two/originals")
