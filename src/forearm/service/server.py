"""Run a service: one process, one event loop, and a stop that first finishes what is in flight."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from typing import Any

import h11
import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from forearm.errors import SpecError
from forearm.jobs.arm import Armourer
from forearm.service import problems
from forearm.service.app import create_app
from forearm.service.engine import Verifier
from forearm.service.settings import Settings


def protocol(settings: Settings) -> type[H11Protocol]:
    """HTTP/1.1 as uvicorn speaks it, with three things more: a time for a request's head, a bound on open connections, and
    problem+json for what is no HTTP."""

    class Bounded(H11Protocol):
        late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > settings.connections:
                transport.abort()
            self.expect()

        def connection_lost(self, exc: Exception | None) -> None:
            self.calm()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self.calm()
            else:  # between requests: uvicorn's own timer stops with the first byte of a head
                self.expect()

        def expect(self) -> None:
            if self.late is None:
                self.late = self.loop.call_later(settings.head_timeout, self.transport.abort)

        def calm(self) -> None:
            if self.late is not None:
                self.late.cancel()
                self.late = None

        def send_400_response(self, msg: str) -> None:
            if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
                data = problems.body(400, f"request: {msg.rstrip('.').lower()}; HTTP/1.1")
                headers = [
                    (b"content-type", problems.MEDIA_TYPE.encode()),
                    (b"content-length", b"%d" % len(data)),
                    (b"connection", b"close"),
                ]
                for event in (
                    h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                    h11.Data(data=data),
                    h11.EndOfMessage(),
                ):
                    self.transport.write(self.conn.send(event) or b"")
            self.transport.close()

    return Bounded


def listen(settings: Settings) -> socket.socket:
    """The bound socket; SpecError where the address cannot be had."""
    bound = None
    try:
        family, kind, number, _, address = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        bound = socket.socket(family, kind, number)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
    except OSError as error:
        if bound is not None:
            bound.close()
        raise SpecError(
            f"{settings.host}:{settings.port}: cannot be listened to ({error.strerror}); a free port, for example --port 8001"
        ) from None
    return bound


def serve(settings: Settings, armourer: Armourer, verifier: Verifier, started: Callable[[str], Any] = lambda address: None) -> None:
    """Serve until SIGINT or SIGTERM, then take no new connections, finish what is in flight (at most `settings.drain`
    seconds), and return. `started` is told the address once it answers. SpecError if the address cannot be had; whatever
    loading the models raises.
    """
    bound = listen(settings)
    with bound:
        run(create_app(settings, armourer, verifier), settings, bound, started)


def run(app: ASGIApp, settings: Settings, bound: socket.socket, started: Callable[[str], Any]) -> None:
    """Serve `app` on a bound socket; in the main thread."""
    host, port = bound.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # as uvicorn's: what hostile clients send is counted, not logged
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}  # uvicorn raises them anew
    try:
        Announced(configured(app, settings), lambda: started(address)).run([bound])
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def configured(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """uvicorn's options for a service: HTTP/1.1 alone, no trust in proxies' headers, no log but for faults."""
    return uvicorn.Config(
        app,
        http=protocol(settings),
        ws="none",
        loop="asyncio",
        lifespan="on",
        log_config=None,
        log_level="error",  # what hostile clients send is counted, not logged
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(settings.drain)),
        h11_max_incomplete_event_size=32 * 1024,
    )


class Announced(uvicorn.Server):
    """A server that tells when it answers."""

    def __init__(self, config: uvicorn.Config, tell: Callable[[], Any]) -> None:
        super().__init__(config)
        self.tell = tell

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's."""
        await super().startup(sockets)
        if self.started:
            self.tell()
