"""A Ray cluster of two nodes on this machine: the bytes of one machine, whoever is killed."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from forearm.engines import ray as engine
from forearm.engines.ray import Fleet
from forearm.errors import ArtifactError, SpecError
from forearm.evaluate.matrix import read_matrix
from forearm.jobs.audit import AuditJob, run
from forearm.jobs.crew import DIED
from forearm.jobs.plan import ProtectJob
from forearm.jobs.protect import Progress, protect
from forearm.jobs.remote import Bench, Block
from forearm.jobs.workers import Refused
from tests.evaluate.bench import matrix_text, write_bench
from tests.jobs.armourers import Fake
from tests.jobs.photos import album, journal, tree

pytestmark = pytest.mark.slow
PHOTOS = 72


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


def fail(number: int) -> int:
    raise ArtifactError(f"weights: got {number}; others")


def start_failing() -> None:
    raise ArtifactError("backbone: not on this node; the same files everywhere")


@pytest.fixture
def cluster() -> Iterator[Any]:
    """Two nodes of one CPU each."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault(engine.LOOPBACK, "0")
    pytest.importorskip("ray", reason="Ray is not installed")
    from ray.cluster_utils import Cluster

    started = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    started.second = started.add_node(num_cpus=1)
    yield started
    started.shutdown()


def everything(fleet: Fleet[int], count: int) -> dict[int, object]:
    answers: dict[int, object] = {}
    while len(answers) < count:
        answers |= dict(fleet.answers())
    return answers


def test_a_fleet_answers_every_errand_whoever_dies(cluster: Any, tmp_path: Path) -> None:
    with Fleet[int](None, None, cluster.address) as fleet:
        assert fleet.workers == 2
        for number in range(10, 18):
            fleet.submit(number, die_of_13, number)
        assert everything(fleet, 8) == {number: 2 * number for number in range(10, 18)} | {13: Refused(DIED)}
        fleet.submit(0, die_once, tmp_path / "mark")
        assert fleet.answers() == [(0, "alive")]
        fleet.submit(1, fail, 1)
        with pytest.raises(ArtifactError, match="weights: got 1"):
            fleet.answers()
    with Fleet[int](start_failing, 1, cluster.address) as fleet:
        fleet.submit(1, die_of_13, 1)
        with pytest.raises(ArtifactError, match="not on this node"):
            fleet.answers()
    with pytest.MonkeyPatch.context() as patch, Fleet[int](None, 1, cluster.address) as fleet:
        patch.setattr(engine, "versions", lambda: {"forearm": "0"})
        fleet.submit(1, double, 1)
        with pytest.raises(SpecError, match="this process forearm 0; the same versions"):
            fleet.answers()


@pytest.mark.parametrize("killed", ["nobody", "a worker", "a node"])
def test_protect_leaves_the_bytes_of_one_machine(cluster: Any, tmp_path: Path, killed: str) -> None:
    album(tmp_path / "in", PHOTOS, ("png", "bmp"))
    protect(ProtectJob((tmp_path / "in",), tmp_path / "whole", jobs=1), Fake())
    job = ProtectJob((tmp_path / "in",), tmp_path / "out", jobs=1)
    happened = []
    with Fleet[Block](partial(Bench, job, Fake(sleep=0.05)), 2, cluster.address) as fleet:

        def report(event: Progress) -> None:
            if event.stage != "arm" or happened or len(fleet.pids) < 2 or killed == "nobody":
                return
            happened.append(event.done)
            if killed == "a worker":
                os.kill(fleet.pids[0], signal.SIGKILL)
            else:
                cluster.remove_node(cluster.second, allow_graceful=False)

        before = set(fleet.pids)
        summary = protect(job, Fake(), report, hands=fleet)
        after = set(fleet.pids)
    assert not before
    assert len(summary.armed) == PHOTOS
    if killed != "nobody":
        assert happened[0] < PHOTOS  # in the midst of it
        assert after
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")
    assert journal(tmp_path / "out") == journal(tmp_path / "whole")


@pytest.mark.parametrize("killed", ["a worker", "a node"])
def test_an_audit_leaves_the_bytes_of_one_machine(cluster: Any, tmp_path: Path, killed: str) -> None:
    path = write_bench(tmp_path)
    (path / "m.toml").write_text(matrix_text(path, '"fgsm", "pgd(steps=6)"', '"none", "mspd(copies=3)"'))
    job = AuditJob(read_matrix(path / "m.toml"), path / "one", 0, folder=path / "data")
    run(job)
    happened = []
    with Fleet[Any](None, 2, cluster.address) as fleet:

        def report(event: object) -> None:
            if not happened and len(fleet.pids) == 2:
                happened.append(killed)
                if killed == "a worker":
                    os.kill(fleet.pids[0], signal.SIGKILL)
                else:
                    cluster.remove_node(cluster.second, allow_graceful=False)

        while len(fleet.pids) < 2:  # an audit this small could be over before the second one is there
            fleet.submit(None, double, 1)
            fleet.answers()
        summary = run(dataclasses.replace(job, store=path / "two"), report, hands=fleet)
    assert happened
    assert not summary.left
    files = [{p.relative_to(path / s).as_posix(): p.read_bytes() for p in (path / s).rglob("*") if p.is_file()} for s in ("one", "two")]
    assert files[0] == files[1]


def test_the_commands_with_a_cluster_of_their_own(tmp_path: Path, pair: dict[str, str]) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    album(tmp_path / "in", 5)
    models = ["--backbone", pair["backbone"], "--labeller", pair["labeller"], "--defense", "mspd(copies=2)"]
    command = [sys.executable, "-m", "forearm", "protect", str(tmp_path / "in"), *models, "--jobs", "1"]
    subprocess.run([*command, "-o", str(tmp_path / "one")], check=True, capture_output=True)
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "two"), "--engine", "ray", "--workers", "1"], check=True, capture_output=True, text=True
    )
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert journal(tmp_path / "one") == journal(tmp_path / "two")
    assert "knows 10 classes" in done.stderr  # what the models know is told although they were elsewhere


def test_the_audit_command_with_a_cluster_of_its_own(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    path = write_bench(tmp_path)
    (path / "m.toml").write_text(matrix_text(path, '"fgsm"', '"none"'))
    command = [sys.executable, "-m", "forearm", "audit", str(path / "m.toml"), "--data", str(path / "data"), "--jobs", "1"]
    for store, options in (("one", []), ("two", ["--engine", "ray", "--workers", "1"])):
        subprocess.run([*command, "--store", str(path / store), *options], check=True, capture_output=True)
    files = [{p.relative_to(path / s).as_posix(): p.read_bytes() for p in (path / s).rglob("*") if p.is_file()} for s in ("one", "two")]
    assert files[0] == files[1]
    assert any(name.endswith(".parquet") for name in files[0])


def test_sigterm_finishes_what_is_in_flight(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    album(tmp_path / "in", PHOTOS, ("png", "bmp"))
    driver = Path(__file__).with_name("drive_ray.py")
    process = subprocess.Popen(
        [sys.executable, str(driver), str(tmp_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True
    )
    assert process.stdout is not None
    for _ in range(PHOTOS + 1):  # of the plan, and the first that is armed
        process.stdout.readline()
    time.sleep(0.2)
    process.terminate()
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 143, errors
    assert 0 < len(tree(tmp_path / "out")) < PHOTOS
    protect(ProtectJob((tmp_path / "in",), tmp_path / "out", jobs=1), Fake())
    protect(ProtectJob((tmp_path / "in",), tmp_path / "whole", jobs=1), Fake())
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_cluster_of_its_own_works_at_the_priority_of_this_process() -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    with Fleet[int](None, 1) as fleet:
        fleet.submit(0, os.nice, 0)
        assert fleet.answers() == [(0, os.nice(0))]
