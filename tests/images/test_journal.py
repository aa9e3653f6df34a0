"""The journal: whole lines, one meaning, repaired after a kill."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from forearm.errors import InputError, SpecError
from forearm.images.journal import History, Journal, Line, OutputError, journal_path, parse, read, same

ARMED = Line("a.png", "1" * 64, "armed", out="a.png", out_sha256="2" * 64, key="3" * 64, psnr=40.5, linf=8, uncertain=False)


def test_lines_survive_the_disk() -> None:
    line = dataclasses.replace(ARMED, file="new\nline \udcff \u00e9.png", psnr=math.inf, margin_after=math.nan)
    text = line.text()
    assert text.isascii()
    assert "\n" not in text
    assert json.loads(text)["schema"] == 1
    assert parse(text.encode(), "j") == dataclasses.replace(line, psnr=None, margin_after=None)


FILE_3 = b'{"schema": 1, "file": 3, "status": "armed", "sha256": null}'


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"7", b'{"file": "a"}', b'{"schema": 1}', FILE_3, b"\xff\xfe"])
def test_broken_lines_are_no_lines(text: bytes) -> None:
    assert parse(text, "j") is None


def test_unknown_fields_and_states_are_no_lines() -> None:
    values = json.loads(ARMED.text())
    assert parse(json.dumps(values | {"colour": 1}).encode(), "j") is None
    assert parse(json.dumps(values | {"status": "maybe"}).encode(), "j") is None


def test_another_schema_is_refused() -> None:
    text = json.dumps(json.loads(ARMED.text()) | {"schema": 2}).encode()
    with pytest.raises(InputError, match="schema 2"):
        parse(text, "j")


def test_what_is_told_twice_is_written_once(tmp_path: Path) -> None:
    with Journal(tmp_path) as journal:
        assert journal.record(ARMED)
        assert not journal.record(dataclasses.replace(ARMED, seconds=3.0, source="/elsewhere"))
        assert journal.record(dataclasses.replace(ARMED, status="skipped"))
        assert journal.record(ARMED)
    assert [line.status for line in read(journal_path(tmp_path))] == ["armed", "skipped", "armed"]


def test_history_remembers_the_last_armed_line() -> None:
    history = History([ARMED, dataclasses.replace(ARMED, status="skipped", out_sha256=None)])
    assert history.last["a.png"].status == "skipped"
    assert history.armed["a.png"] == ARMED
    assert history.outputs == {"2" * 64}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(cut=st.integers(0, 900))
def test_cut_anywhere_it_opens_and_goes_on(tmp_path: Path, cut: int) -> None:
    lines = [dataclasses.replace(ARMED, file=f"{number}.png") for number in range(2)]
    data = b"".join(line.text().encode() + b"\n" for line in lines)[:cut]
    path = journal_path(tmp_path)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    whole = data.count(b"\n")
    with Journal(tmp_path) as journal:
        assert len(journal.history.last) == whole
        for line in lines:
            journal.record(line)
    assert read(path) == lines
    assert path.read_bytes().count(b"\n") == 2


def test_garbage_in_the_middle_is_passed_over(tmp_path: Path) -> None:
    path = journal_path(tmp_path)
    path.parent.mkdir()
    path.write_bytes(ARMED.text().encode() + b"\n\x00\xffgarbage\n\n" + ARMED.text().encode() + b"\n")
    assert read(path) == [ARMED, ARMED]


def test_one_run_at_a_time(tmp_path: Path) -> None:
    with Journal(tmp_path), pytest.raises(SpecError, match="another run"):
        Journal(tmp_path)
    with Journal(tmp_path):
        pass


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        Journal(tmp_path / "file")


def test_same_looks_past_time_and_place() -> None:
    assert same(ARMED, dataclasses.replace(ARMED, seconds=1.0))
    assert not same(ARMED, dataclasses.replace(ARMED, linf=9))
