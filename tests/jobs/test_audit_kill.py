"""The audit against kills, dying workers and signals, in processes of its own: whatever happens, the store ends the same."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from forearm.evaluate.matrix import read_matrix
from forearm.evaluate.store import Store
from forearm.jobs.audit import AuditJob, run
from tests.evaluate.bench import matrix_text, write_bench
from tests.jobs.test_audit import tree
from tests.jobs.test_protect_kill import workers_of

DRIVER = Path(__file__).with_name("drive_audit.py")
TASKS = 14  # of the matrix below: two blocks of a release, six cells of two blocks


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bench, a matrix over it, and the store of an undisturbed run in this process."""
    path = write_bench(tmp_path_factory.mktemp("kill"))
    (path / "m.toml").write_text(matrix_text(path, '"fgsm", "pgd(steps=6)"', '"none", "mspd(copies=3)"'))
    (path / "masked.toml").write_text((path / "m.toml").read_text().replace("masking = false", ""))
    for name in ("m", "masked"):
        run(AuditJob(read_matrix(path / f"{name}.toml"), path / name, 0, folder=path / "data"))
    return path


def start(folder: Path, store: Path, jobs: int = 0, matrix: str = "m.toml") -> subprocess.Popen[bytes]:
    """The audit in a process group of its own."""
    command = [sys.executable, str(DRIVER), str(folder / matrix), str(store), str(folder / "data"), str(jobs)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)


def after_events(process: subprocess.Popen[bytes], count: int) -> bool:
    """Wait until the audit has reported `count` times; whether it did not end before."""
    assert process.stdout is not None
    return all(process.stdout.readline() == b"event\n" for _ in range(count))


def kill_and_look(process: subprocess.Popen[bytes], store: Path, whole: dict[str, bytes]) -> None:
    """Kill the parent, wait for its workers' end, and check that every file that has its name is the one of an undisturbed run."""
    process.kill()
    process.communicate()
    end = time.monotonic() + 10
    while workers_of(process.pid) and time.monotonic() < end:
        time.sleep(0.02)
    assert workers_of(process.pid) == []
    for name, data in tree(store).items() if store.is_dir() else ():
        assert name.rpartition("/")[2].startswith(".forearm-") or data == whole[name], name


def test_killed_three_times_and_resumed_the_store_is_the_same(folder: Path, tmp_path: Path) -> None:
    rng, whole = random.Random(0), tree(folder / "m")
    store, here = tmp_path / "runs", 0
    for part in range(3):
        process = start(folder, store)
        after_events(process, rng.randint(1, TASKS // 3 - 1))
        time.sleep(rng.random() * 0.03)
        kill_and_look(process, store, whole)
        assert here < len(tree(store)) < len(whole), part  # each run came further, and none to the end
        here = len(tree(store))
    summary = run(AuditJob(read_matrix(folder / "m.toml"), store, 0, folder=folder / "data"))
    assert not summary.notes
    assert tree(store) == whole


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_killed_ten_times_with_two_workers_the_store_is_the_same(folder: Path, tmp_path: Path, seed: int) -> None:
    """Two seeds: twenty kills, at random moments from the start of the process to its end, masking verdicts among them."""
    rng, whole = random.Random(seed), tree(folder / "masked")
    store = tmp_path / "runs"
    for number in range(10):
        process = start(folder, store, jobs=2, matrix="masked.toml")
        if number % 3:
            after_events(process, rng.randint(1, 3))
        time.sleep(rng.random() * (0.1 if number % 3 else 4.0))
        kill_and_look(process, store, whole)
    summary = run(AuditJob(read_matrix(folder / "masked.toml"), store, 0, folder=folder / "data"))
    assert not summary.notes
    assert tree(store) == whole


@pytest.mark.slow
@pytest.mark.parametrize("jobs", [1, 4])
def test_any_number_of_workers_leaves_the_same_bytes(folder: Path, tmp_path: Path, jobs: int) -> None:
    summary = run(AuditJob(read_matrix(folder / "masked.toml"), tmp_path / "runs", jobs, folder=folder / "data"))
    assert not summary.left
    assert tree(tmp_path / "runs") == tree(folder / "masked")


@pytest.mark.slow
def test_a_killed_worker_costs_nothing(folder: Path, tmp_path: Path) -> None:
    """One of two workers is killed in the midst of the work: its block is done again, and the bytes are those of a run in this process."""
    process = start(folder, tmp_path / "runs", jobs=2)
    assert after_events(process, 3)
    workers = [pid for pid in workers_of(process.pid) if b"spawn_main" in Path(f"/proc/{pid}/cmdline").read_bytes()]
    assert len(workers) == 2
    os.kill(workers[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert tree(tmp_path / "runs") == tree(folder / "m")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)])
def test_a_signal_finishes_what_is_in_flight(folder: Path, tmp_path: Path, number: int, code: int) -> None:
    process = start(folder, tmp_path / "runs", jobs=1)
    assert after_events(process, 3)
    os.killpg(process.pid, number) if number == signal.SIGINT else os.kill(process.pid, number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert b"Traceback" not in errors
    found, whole = tree(tmp_path / "runs"), tree(folder / "m")
    assert 3 <= len(found) < len(whole)
    assert found.items() <= whole.items()
    assert all(Store(tmp_path / "runs").rows(cell).shape[0] == 30 for cell in Store(tmp_path / "runs").cells())
