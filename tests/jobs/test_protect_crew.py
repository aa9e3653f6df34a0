"""Worker processes that die, and what they import."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from forearm.jobs.crew import DIED, Crew
from forearm.jobs.workers import Refused


def double(number: int) -> int:
    return 2 * number


def die_of_13(number: int) -> int:
    if number == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    return 2 * number


def die_once(mark: Path) -> str:
    if not mark.exists():
        mark.write_text("")
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def everything(crew: Crew[int]) -> dict[int, object]:
    answers: dict[int, object] = {}
    while crew.busy:
        answers |= dict(crew.answers())
    return answers


def test_a_crew_answers_every_errand() -> None:
    with Crew[int](2) as crew:
        for number in range(20):
            crew.submit(number, double, number)
        assert everything(crew) == {number: 2 * number for number in range(20)}


def test_a_dead_worker_costs_one_errand() -> None:
    with Crew[int](2) as crew:
        for number in range(10, 18):
            crew.submit(number, die_of_13, number)
        assert everything(crew) == {number: 2 * number for number in range(10, 18)} | {13: Refused(DIED)}
        crew.submit(1, double, 1)
        assert everything(crew) == {1: 2}


def test_an_errand_is_tried_twice(tmp_path: Path) -> None:
    with Crew[int](1) as crew:
        crew.submit(0, die_once, tmp_path / "mark")
        assert everything(crew) == {0: "alive"}


def test_workers_do_not_import_torch() -> None:
    code = "import sys, forearm.jobs.workers, forearm.jobs.crew; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
