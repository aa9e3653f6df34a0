"""`forearm serve` as it is started and stopped, with the embedded models."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from forearm.cli import serve as command
from forearm.cli.app import app
from forearm.errors import SpecError
from forearm.images.codec import decode
from forearm.images.provenance import tag_of
from forearm.jobs.armory import Armory
from forearm.jobs.pair import Pair
from forearm.jobs.single import protect_bytes
from forearm.jobs.verify import pairings, verify
from forearm.service.server import listen
from forearm.service.settings import Settings
from forearm.service.verifying import Inspector, threat_of
from tests.jobs.photos import paint
from tests.service.live import problem, report

DEFENSE = "mspd(copies=2)"


@contextlib.contextmanager
def started(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The command on a free port, and its address."""
    words = [sys.executable, "-m", "forearm", "serve", "--port", "0", "--defense", DEFENSE, "--seed", "5", *arguments]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            assert line.startswith("forearm serves http://127.0.0.1:"), line + process.stderr.read()
            yield process, line.split()[2]
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_bytes_as_protect_and_a_stop_that_drains(tmp_path: Path) -> None:
    sources = [paint(tmp_path / "in/a.png", 1), paint(tmp_path / "in/b.jpg", 2, 80, 96)]
    run = subprocess.run(
        [sys.executable, "-m", "forearm", "protect", str(tmp_path / "in"), "-o", str(tmp_path / "out"), "--defense", DEFENSE, "--seed", "5"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    with started("--decoders", "1") as (process, address):
        for source in sources:
            answer = httpx.post(f"{address}/v1/arm", content=source.read_bytes(), timeout=60)
            assert report(answer)["labelled_by"] in ("labeller", "backbone")
            assert answer.content == (tmp_path / "out" / source.name).read_bytes()
        late: list[httpx.Response] = []
        photo = paint(tmp_path / "c.png", 3, 700, 900).read_bytes()
        thread = threading.Thread(target=lambda: late.append(httpx.post(f"{address}/v1/arm", content=photo, timeout=60)))
        thread.start()
        while "forearm_requests_inside 1.0" not in httpx.get(f"{address}/metrics").text:
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGTERM)  # as a service manager does, to all its processes
        thread.join()
        report(late[0])
        assert process.wait(30) == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{address}/health")


def test_verify_says_what_the_command_says(tmp_path: Path) -> None:
    original = paint(tmp_path / "a.png", 1)
    armory = Armory.open(DEFENSE)
    inspector = Inspector(armory, attack="pgd(steps=2)")
    armed = tmp_path / "b.png"
    armed.write_bytes(protect_bytes(original.read_bytes(), armory)[0])
    for one in (armed, original):
        expected = asdict(next(iter(verify(pairings(one, original), attack="pgd(steps=2)"))))
        said = asdict(inspector(decode(original), decode(one), tag_of(one), None))
        for values in (expected, said):
            values.pop("file"), values.pop("original")
        assert said == expected
    given = inspector(decode(original), decode(armed), tag_of(armed), "truck")
    assert given.name == "truck"


def test_a_tag_chooses_no_model_and_no_odd_threat() -> None:
    assert str(threat_of({"forearm": "1", "threat": "linf:2/255", "backbone": "https://evil.example/card.toml#sha256=0"})) == "linf:2/255"
    for tag in (None, {"forearm": "1"}, {"forearm": "1", "threat": "huge"}, {"forearm": "1", "threat": "targeted:linf:8/255"}):
        assert threat_of(tag) is None


def test_models_are_loaded_in_a_thread_that_ends() -> None:
    """OpenMP counts the threads that computed: the main one must not, or those that arm wait for each other asleep."""
    seen: list[tuple[int, threading.Thread]] = []

    class Loading(Armory):
        def pair(self, height: int, width: int) -> Pair:
            seen.append((height, threading.current_thread()))
            if width > 32:
                raise SpecError("no such model")
            return super().pair(height, width)

    with pytest.raises(SpecError, match="no such model"):
        command.load_aside(Loading.open(DEFENSE))
    assert [side for side, _ in seen] == [32, 256]
    assert all(thread is not threading.main_thread() and not thread.is_alive() for _, thread in seen)


def refused(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "forearm", "serve", *words], capture_output=True, text=True, timeout=60)


def test_what_cannot_start_is_one_line() -> None:
    public = refused("--host", "0.0.0.0")
    assert (public.returncode, public.stderr.count("\n")) == (2, 1)
    assert "API key" in public.stderr
    with listen(Settings(port=0)) as bound:
        bound.listen()
        with pytest.raises(SpecError, match="cannot be listened to"):
            listen(Settings(port=bound.getsockname()[1]))


def test_the_extra_is_named_where_it_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("fastapi", "forearm.service"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    result = CliRunner().invoke(app, ["serve"])
    assert isinstance(result.exception, SpecError)
    assert "pip install 'forearm[service]'" in str(result.exception)


def test_the_key_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "key").write_text("0123456789abcdef\n")
    assert command.key_of(tmp_path / "key") == "0123456789abcdef"
    monkeypatch.delenv(command.KEY, raising=False)
    assert command.key_of(None) is None
    monkeypatch.setenv(command.KEY, "from the environment")
    assert command.key_of(None) == "from the environment"
    with pytest.raises(SpecError, match="no readable key"):
        command.key_of(tmp_path / "missing")


def test_problem_checks_what_it_says() -> None:
    with pytest.raises(AssertionError):
        problem(httpx.Response(422, json={"detail": "x"}), 422)
