"""More than the service can do: it says so at once, forgets who left, and finishes what it took."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from forearm.jobs.arm import Armed, Pixels
from forearm.service.engine import Gate
from forearm.service.problems import Problem
from tests.images.corpus import sound
from tests.jobs.armourers import Fake
from tests.service.live import Live, problem, report, serving

HEAD = "POST /v1/arm HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n"


@dataclass
class Held(Fake):
    """An armourer that works only while `go` is set, and tells when it began."""

    go: threading.Event = field(default_factory=threading.Event)
    began: threading.Event = field(default_factory=threading.Event)

    def arm(self, pictures: list[Pixels], labels: list[int | None]) -> list[Armed]:  # type: ignore[override]
        self.began.set()
        assert self.go.wait(30)
        return super().arm(pictures, labels)


@pytest.fixture
def held() -> Iterator[Live]:
    with serving(Held(), queue=3, batch=1, upload_timeout=0.5, head_timeout=0.5, connections=12) as service:
        yield service
        service.armourer.go.set()


def until(true: object, seconds: float = 20) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not true():  # type: ignore[operator]
        assert time.monotonic() < end
        time.sleep(0.02)


def test_a_full_queue_says_when_to_come_again(held: Live) -> None:
    with ThreadPoolExecutor(3) as pool:
        inside = [pool.submit(held.client.post, "/v1/arm", content=sound("PNG")) for _ in range(3)]
        until(lambda: held.metric("forearm_requests_inside") == 3)
        answer = held.client.post("/v1/arm", content=sound("PNG"))
        problem(answer, 429)
        assert int(answer.headers["retry-after"]) >= 1
        assert held.client.get("/ready").status_code == 200  # these need no place
        held.armourer.go.set()
        assert [report(future.result())["status"] for future in inside] == ["armed"] * 3
    assert held.metric("forearm_requests_inside") == 0
    report(held.client.post("/v1/arm", content=sound("PNG")))


def test_who_hangs_up_is_forgotten(held: Live) -> None:
    data = sound("PNG")
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(held.client.post, "/v1/arm", content=data)
        assert held.armourer.began.wait(20)
        with socket.create_connection(("127.0.0.1", held.port)) as line:
            line.sendall(HEAD.format(len(data)).encode() + data)
            until(lambda: held.metric("forearm_models_waiting") == 1)
        until(lambda: held.metric("forearm_requests_inside") == 1)
        held.armourer.go.set()
        report(first.result())
    report(held.client.post("/v1/arm", content=sound("JPEG")))
    assert len(held.armourer.batches) == 2  # never the one who left


def test_slow_bodies_and_heads_are_given_up(held: Live) -> None:
    assert held.raw(HEAD.format(1000).encode() + b"x").startswith(b"HTTP/1.1 408 ")
    with socket.create_connection(("127.0.0.1", held.port), timeout=10) as line:
        started = time.monotonic()
        line.sendall(b"GET /health HTTP/1.1\r\nHost: local")
        try:
            ended = line.recv(100)
        except ConnectionResetError:
            ended = b""
        assert ended == b""
        assert 0.3 < time.monotonic() - started < 8
    assert held.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 200 ")


def test_a_drip_between_requests_does_not_hold_a_line(held: Live) -> None:
    with socket.create_connection(("127.0.0.1", held.port), timeout=10) as line:
        line.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert line.recv(65536).startswith(b"HTTP/1.1 200 ")
        started = time.monotonic()
        with contextlib.suppress(OSError):  # reset or broken pipe, as it happens
            while time.monotonic() - started < 8:
                line.sendall(b"G")
                time.sleep(0.1)
    assert time.monotonic() - started < 5


def test_too_many_lines_are_closed(held: Live) -> None:
    lines = [socket.create_connection(("127.0.0.1", held.port), timeout=5) for _ in range(30)]
    try:
        closed = 0
        for line in lines[15:]:
            try:
                closed += line.recv(1) == b""
            except ConnectionResetError:
                closed += 1
        assert closed == 15
    finally:
        for line in lines:
            line.close()
    until(lambda: held.raw(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").startswith(b"HTTP/1.1 200 "))


def test_what_is_no_http_is_a_problem_too(held: Live) -> None:
    for rubbish in (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/1.1\r\nHost a\r\n\r\n"):
        answer = held.raw(rubbish)
        assert answer.startswith(b"HTTP/1.1 400 ")
        assert b"application/problem+json" in answer
        assert b'"status": 400' in answer


def test_what_takes_too_long_is_given_up() -> None:
    with serving(Fake(sleep=1.0), timeout=0.3) as service:
        answer = service.client.post("/v1/arm", content=sound("PNG"))
        problem(answer, 503)
        assert "retry-after" in answer.headers
        until(lambda: service.metric("forearm_requests_inside") == 0)


def test_faults_are_told_without_their_cause() -> None:
    class Broken(Fake):
        def arm(self, pictures: list[Pixels], labels: list[int | None]) -> list[Armed]:  # type: ignore[override]
            raise RuntimeError("secret")

    with serving(Broken()) as service:
        assert "secret" not in problem(service.client.post("/v1/arm", content=sound("PNG")), 500)
        assert service.client.get("/ready").status_code == 200
    with serving(Fake(memory=0)) as service:
        assert "memory" in problem(service.client.post("/v1/arm", content=sound("PNG")), 422)


def test_a_gate_gives_back_its_place_whatever_happens() -> None:
    gate = Gate(1)
    with pytest.raises(ValueError, match="inside"), gate.enter():
        raise ValueError("inside")
    with gate.enter(), pytest.raises(Problem) as refused, gate.enter():
        pass
    assert refused.value.status == 429
    assert gate.inside == 0


def test_the_time_to_wait_follows_the_pictures() -> None:
    def wait(seconds: float) -> int:
        gate = Gate(8)
        for _ in range(50):
            gate.took(seconds)
        gate.inside = 8
        with pytest.raises(Problem) as refused, gate.enter():
            pass
        return int(refused.value.headers["Retry-After"])

    assert [wait(seconds) for seconds in (0.01, 5.0, 1000.0)] == [1, 20, 300]
