"""A service on a free port, in a thread of the test's process, with an armourer that needs no model."""

from __future__ import annotations

import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np
from starlette.types import ASGIApp

from forearm.images.picture import Picture
from forearm.images.provenance import Tag
from forearm.jobs.arm import Armourer
from forearm.jobs.compare import Check
from forearm.service.app import create_app
from forearm.service.server import Announced, configured, listen
from forearm.service.settings import Settings
from tests.jobs.armourers import Fake

PROBLEM = "application/problem+json"


def stub_verifier(before: Picture, after: Picture, tag: Tag | None, label: str | None) -> Check:
    """Says whether the files are alike."""
    alike = before.pixels.shape == after.pixels.shape and np.array_equal(before.pixels, after.pixels)
    return Check("armed", "original", None if tag else "no tag", within=alike, psnr=float("inf"), name=str(label))


@dataclass
class Live:
    """A running service: its address, a client for it, its armourer."""

    address: str
    client: httpx.Client
    armourer: Any
    app: ASGIApp = field(repr=False)

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def raw(self, data: bytes, seconds: float = 20) -> bytes:
        """The answer to these bytes, whole or as far as it came before the service closed the line."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=seconds) as line:
            line.sendall(data)
            answer = b""
            while b"\r\n\r\n" not in answer or len(answer.partition(b"\r\n\r\n")[2]) < length_of(answer):
                piece = line.recv(65536)
                if not piece:
                    break
                answer += piece
        return answer

    def metric(self, name: str) -> float:
        """One counter; 0 where it was never counted."""
        lines = self.client.get("/metrics").text.splitlines()
        return next((float(line.rpartition(" ")[2]) for line in lines if line.rpartition(" ")[0] == name), 0.0)


@contextmanager
def serving(armourer: Armourer | None = None, **options: Any) -> Iterator[Live]:
    """A service for the block; then it is drained."""
    settings = Settings(port=0, **{"decoders": 1, "drain": 10.0} | options)
    armourer = Fake() if armourer is None else armourer
    app = create_app(settings, armourer, stub_verifier)
    with listen(settings) as bound:
        address = f"http://127.0.0.1:{bound.getsockname()[1]}"
        up = threading.Event()
        server = Announced(configured(app, settings), up.set)
        thread = threading.Thread(target=server.run, args=([bound],))
        thread.start()
        try:
            assert up.wait(60)
            with httpx.Client(base_url=address, timeout=60) as client:
                yield Live(address, client, armourer, app)
        finally:
            server.should_exit = True
            thread.join(60)
    assert not thread.is_alive()


def length_of(answer: bytes) -> int:
    """The Content-Length of an answer; 0 where it has none."""
    found = re.search(rb"(?i)content-length: (\d+)", answer)
    return int(found[1]) if found else 0


def report(answer: httpx.Response) -> dict[str, Any]:
    """What an answer says was done."""
    assert answer.status_code == 200, answer.text
    said: dict[str, Any] = json.loads(answer.headers["forearm-report"])
    return said


def problem(answer: httpx.Response, status: int) -> str:
    """The detail of a refusal, which must be a whole RFC 9457 problem of this status."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == PROBLEM
    said = answer.json()
    assert set(said) == {"type", "title", "status", "detail"}
    assert said["status"] == status
    assert said["detail"].isprintable()
    return str(said["detail"])
