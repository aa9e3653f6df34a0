"""The outermost layer: who may ask, under which name, and what every answer carries."""

from __future__ import annotations

import asyncio
import hmac
import logging
import time
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from forearm.service.metrics import Metrics
from forearm.service.problems import GONE, Problem, problem_of, response
from forearm.service.settings import Settings

LOG = logging.getLogger("forearm.service")
# Nothing from elsewhere; pictures and their differences are blobs that the page itself made.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
SLOWEST = 64 * 1024  # bytes a second that a client must read, after some grace
OPEN = frozenset({"/", "/page/page.css", "/page/page.js", "/page/icon.svg", "/health", "/ready"})  # no key is asked for these


class Unread(Exception):
    """The client does not read its answer."""


class Guard:
    """An ASGI layer. Refuses names it is not reached by (421), pages of other sites (403) and wrong keys (401).

    The name in the Host header matters for an address that only this machine reaches: a page of another site whose name
    was made to point here (DNS rebinding) would otherwise be let in by the browser.
    """

    def __init__(self, app: ASGIApp, settings: Settings, metrics: Metrics) -> None:
        self.app = app
        self.settings = settings
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, counted and timed."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), GONE

        async def dressed(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            try:
                async with asyncio.timeout(self.settings.upload_timeout + len(message.get("body", b"")) / SLOWEST):
                    await send(message)
            except TimeoutError:
                raise Unread from None

        try:
            problem = refusal(self.settings, scope["path"], Headers(scope=scope))
            await (self.app if problem is None else response(problem))(scope, receive, dressed)
        except Unread:  # uvicorn closes the line
            status = GONE
        except Exception as error:  # most clients were told (`problems.install`): here it is logged
            LOG.exception("a fault at %s %s", scope["method"], getattr(scope.get("route"), "path", "other"))
            if status == GONE:
                await response(problem_of(error))(scope, receive, dressed)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, str(status)).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - started)


def refusal(settings: Settings, path: str, headers: Headers) -> Problem | None:
    """Why a request is turned away at the door, or None."""
    host = name_of(f"//{headers.get('host', '')}")
    hosts = settings.hosts
    if hosts is not None and host not in hosts:
        return Problem(421, f"host: got {host!r}; one of {', '.join(sorted(hosts))}; more with --name")
    origin = headers.get("origin")
    if origin is not None and place_of(origin) != headers.get("host", "").lower():
        return Problem(403, "origin: a page of another site; the page of this service, or a program")
    if headers.get("sec-fetch-site", "none") == "cross-site" and path not in OPEN:
        return Problem(403, "sec-fetch-site: a page of another site; the page of this service, or a program")
    if settings.api_key is not None and path not in OPEN and not has_key(settings.api_key, headers):
        return Problem(
            401, "authorization: no right API key; the header 'Authorization: Bearer KEY'", {"WWW-Authenticate": 'Bearer realm="forearm"'}
        )
    return None


def has_key(key: str, headers: Headers) -> bool:
    """Whether the Authorization header holds the key, compared in a time that does not depend on where they differ."""
    kind, _, given = headers.get("authorization", "").partition(" ")
    return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), key.encode())


def name_of(address: str) -> str:
    """The host's name in an address, in small letters; empty where there is none."""
    try:
        return urlsplit(address).hostname or ""
    except ValueError:
        return ""


def place_of(origin: str) -> str | None:
    """Host and port of an origin as a Host header writes them; None for 'null' and what is no address."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
