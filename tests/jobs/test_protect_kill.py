"""The folder job against signals, in processes of its own."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forearm.errors import SpecError
from forearm.images.journal import read
from forearm.jobs.plan import ProtectJob
from forearm.jobs.protect import protect
from tests.jobs.armourers import Fake
from tests.jobs.photos import album, journal, tree

DRIVER = Path(__file__).with_name("drive_protect.py")


def start(tmp_path: Path, sleep: float = 0.02) -> subprocess.Popen[bytes]:
    """The job in a process group of its own."""
    command = [sys.executable, str(DRIVER), str(tmp_path / "in"), str(tmp_path / "out"), str(sleep), "2"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def after_events(process: subprocess.Popen[bytes], count: int) -> None:
    """Wait until the job has reported `count` times."""
    assert process.stdout is not None
    for _ in range(count):
        assert process.stdout.readline() == b"event\n"


def workers_of(pid: int) -> list[int]:
    """Live processes of the session that `pid` leads, but not itself."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != pid:
            try:
                state, _, _, session = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
            except OSError:
                continue
            if int(session) == pid and state != "Z":
                found.append(int(entry.name))
    return found


@pytest.fixture
def expected(tmp_path: Path) -> tuple[dict[str, bytes], dict[str, object]]:
    album(tmp_path / "in", 24, ("png", "bmp"))
    protect(ProtectJob((tmp_path / "in",), tmp_path / "whole"), Fake())
    return tree(tmp_path / "whole"), journal(tmp_path / "whole")


@pytest.mark.parametrize("seed", range(2))
def test_killed_at_any_moment_a_rerun_completes(tmp_path: Path, expected: tuple[object, object], seed: int) -> None:
    whole, lines = expected
    assert isinstance(whole, dict)
    rng = random.Random(seed)
    for _ in range(2):
        process = start(tmp_path)
        after_events(process, 24 + rng.randrange(4))
        time.sleep(rng.random() * 0.05)
        process.kill()
        process.communicate()
        for name, data in tree(tmp_path / "out").items():
            assert name.rpartition("/")[2].startswith(".forearm-") or data == whole[name]
        assert all(line.status == "armed" for line in read(tmp_path / "out/.forearm/journal.jsonl"))
    summary = protect(ProtectJob((tmp_path / "in",), tmp_path / "out"), Fake())
    assert len(summary.armed) + len(summary.done) == 24
    assert tree(tmp_path / "out") == whole
    assert journal(tmp_path / "out") == lines


@pytest.mark.parametrize(
    ("number", "code", "group"), [(signal.SIGINT, 130, True), (signal.SIGTERM, 143, False), (signal.SIGTERM, 143, True)]
)
def test_signals_finish_what_is_in_flight(tmp_path: Path, expected: tuple[object, object], number: int, code: int, group: bool) -> None:
    process = start(tmp_path, 0.05)
    after_events(process, 26)
    (os.killpg if group else os.kill)(process.pid, number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert b"Traceback" not in errors
    done = read(tmp_path / "out/.forearm/journal.jsonl")
    assert 2 <= len(done) < 24
    assert set(tree(tmp_path / "out")) == {line.file for line in done}
    protect(ProtectJob((tmp_path / "in",), tmp_path / "out"), Fake())
    assert (tree(tmp_path / "out"), journal(tmp_path / "out")) == expected


def test_a_second_run_is_refused_and_workers_end_with_a_killed_parent(tmp_path: Path, expected: tuple[object, object]) -> None:
    process = start(tmp_path, 0.2)
    after_events(process, 25)
    with pytest.raises(SpecError, match="another run"):
        protect(ProtectJob((tmp_path / "in",), tmp_path / "out"), Fake())
    assert workers_of(process.pid)
    process.kill()
    process.communicate()
    end = time.monotonic() + 5
    while workers_of(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert workers_of(process.pid) == []
