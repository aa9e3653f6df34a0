"""Blocks that go out to hands: what comes back is what the folder job makes, whoever dies."""

from __future__ import annotations

import pickle
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from forearm.errors import ArtifactError, SpecError
from forearm.jobs.crew import DIED
from forearm.jobs.plan import ProtectJob
from forearm.jobs.protect import Progress, protect
from forearm.jobs.remote import BLOCK, Bench, Block
from forearm.jobs.workers import Refused
from tests.jobs.armourers import Fake
from tests.jobs.photos import album, journal, tree


class Loopback:
    """Hands in this process that pickle what they get and give. `dies`: whether they die of a block."""

    def __init__(self, bench: Bench, dies: Callable[[Block], bool] = lambda _: False) -> None:
        self.bench = bench
        self.dies = dies
        self.capacity = 2
        self.waiting: deque[tuple[Block, Callable[..., Any], Any]] = deque()
        self.most = 0

    def submit(self, ticket: Block, work: Callable[..., Any], request: object) -> None:
        self.waiting.append((ticket, work, pickle.loads(pickle.dumps(request))))
        self.most = max(self.most, len(self.waiting))

    def answers(self) -> list[tuple[Block, Any]]:
        ticket, work, request = self.waiting.popleft()
        return [(ticket, Refused(DIED) if self.dies(ticket) else pickle.loads(pickle.dumps(work(self.bench, request))))]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An album of three blocks with a broken file, armed once by the folder job; the inputs are given by a relative path."""
    album(tmp_path / "in", 2 * BLOCK + 3, ("png", "bmp"))
    (tmp_path / "in/00.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    protect(ProtectJob((tmp_path / "in",), tmp_path / "whole", jobs=1), Fake())
    monkeypatch.chdir(tmp_path)
    return tmp_path


JOB = ProtectJob((Path("in"),), Path("out"), jobs=1)


def test_the_bytes_and_the_journal_are_those_of_the_folder_job(photos: Path) -> None:
    hands, events = Loopback(Bench(JOB, Fake())), []

    def report(event: Progress) -> None:
        events.append(event)

    summary = protect(JOB, Fake(), report, hands=hands)
    assert (len(summary.armed), len(summary.failed), hands.most) == (2 * BLOCK + 2, 1, 2)
    assert tree(photos / "out") == tree(photos / "whole")
    assert journal(photos / "out") == journal(photos / "whole")
    assert events[-1].done == 2 * BLOCK + 3
    assert not protect(JOB, Fake(), hands=hands).armed


def test_a_picture_that_kills_costs_itself(photos: Path) -> None:
    hands = Loopback(Bench(JOB, Fake()), lambda block: any(task.name == "summer/05.bmp" for task in block))
    summary = protect(JOB, Fake(), hands=hands)
    assert {line.file: line.reason for line in summary.failed}["summer/05.bmp"] == DIED
    assert len(summary.armed) == 2 * BLOCK + 1
    assert len(protect(JOB, Fake(), hands=Loopback(Bench(JOB, Fake()))).armed) == 1
    assert tree(photos / "out") == tree(photos / "whole")


def test_stopped_the_blocks_in_flight_are_finished(photos: Path) -> None:
    seen: list[Progress] = []
    summary = protect(JOB, Fake(), seen.append, lambda: len(seen) > 2 * BLOCK + 3, Loopback(Bench(JOB, Fake())))
    assert (len(summary.armed) + len(summary.failed), len(summary.left)) == (2 * BLOCK, 3)


def test_what_stops_a_job_comes_back(photos: Path) -> None:
    job = replace(JOB, labels=photos / "labels.csv")
    (photos / "labels.csv").write_text("file,label\nsummer/01.bmp,dog\n")
    bench = Bench(job, Fake())
    bench.armourer.class_index = lambda name, height, width: (_ for _ in ()).throw(SpecError("label: no"))  # type: ignore[method-assign]
    with pytest.raises(SpecError, match="label: no"):
        protect(job, Fake(), hands=Loopback(bench))


def test_other_models_at_a_worker_are_told_and_nothing_is_written(photos: Path) -> None:
    with pytest.raises(ArtifactError, match="other models"):
        protect(JOB, Fake(), hands=Loopback(Bench(JOB, Fake(seed=1))))
    assert tree(photos / "out") == {}
