"""Who is let in: keys, host names, pages of other sites."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from forearm.errors import SpecError
from forearm.service.guard import Guard
from forearm.service.metrics import Metrics
from forearm.service.settings import Settings
from tests.images.corpus import sound
from tests.service.live import Live, problem, report, serving

KEY = "0123456789abcdef"


@pytest.fixture(scope="module")
def locked() -> Iterator[Live]:
    with serving(api_key=KEY) as service:
        yield service


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_a_key_opens(locked: Live) -> None:
    data = sound("PNG")
    report(locked.client.post("/v1/arm", content=data, headers=bearer(KEY)))
    report(locked.client.post("/v1/arm", content=data, headers={"authorization": f"bearer  {KEY}"}))
    for headers in (
        {},
        bearer(KEY[:-1]),
        bearer(KEY + "0"),
        {"Authorization": "Bearer"},
        {"Authorization": f"Basic {KEY}"},
        {"X-API-Key": KEY},
    ):
        answer = locked.client.post("/v1/arm", content=data, headers=headers)
        problem(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Bearer")
    assert locked.raw(b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer \xff\xfe\r\n\r\n").startswith(b"HTTP/1.1 401 ")


def test_what_needs_no_key(locked: Live) -> None:
    for path in ("/", "/page/page.js", "/page/page.css", "/page/icon.svg", "/health", "/ready"):
        assert locked.client.get(path).status_code == 200
    for path in ("/metrics", "/openapi.json", "/v1/models", "/nothing"):
        problem(locked.client.get(path), 401)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "LOCALHOST:1", "[::1]:8000"])
def test_own_names_are_let_in(locked: Live, host: str) -> None:
    assert locked.client.get("/health", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "", "[", "localhost@evil.example"])
def test_other_names_are_not(locked: Live, host: str) -> None:
    problem(locked.client.get("/health", headers={"Host": host}), 421)


def test_pages_of_other_sites_are_not(locked: Live) -> None:
    key = bearer(KEY)
    data = sound("PNG")
    for origin in ("https://evil.example", "null", f"http://localhost:{locked.port + 1}", "http://["):
        problem(locked.client.post("/v1/arm", content=data, headers=key | {"Origin": origin}), 403)
    problem(locked.client.post("/v1/arm", content=data, headers=key | {"Sec-Fetch-Site": "cross-site"}), 403)
    report(locked.client.post("/v1/arm", content=data, headers=key | {"Origin": locked.address, "Sec-Fetch-Site": "same-origin"}))
    assert locked.client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200  # a link to the page


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"host": "0.0.0.0"}, "without an API key"),
        ({"host": "::"}, "without an API key"),
        ({"host": "photos.example"}, "without an API key"),
        ({"api_key": "short"}, "at least 16"),
        ({"api_key": "\n" * 20}, "printable"),
        ({"port": 70_000}, "65535"),
        ({"queue": 0}, "at least 1"),
        ({"timeout": 0.0}, "above 0"),
        ({"timeout": float("nan")}, "above 0"),
    ],
)
def test_settings_that_must_not_be(options: dict[str, Any], says: str) -> None:
    with pytest.raises(SpecError, match=says):
        Settings(**options)


def test_names_and_secrets_of_settings() -> None:
    local, public = Settings(), Settings(host="0.0.0.0", api_key=KEY)
    assert local.hosts == {"localhost", "127.0.0.1", "::1"}
    assert public.hosts is None
    assert replace(public, names=("Photos.example",)).hosts == {"photos.example", "0.0.0.0"}
    assert Settings(host="127.8.8.8").local
    assert KEY not in repr(public)


def test_who_does_not_read_its_answer_loses_its_place() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x"})

    async def deaf(message: Message) -> None:
        if message["type"] == "http.response.body":
            await asyncio.sleep(60)

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    metrics = Metrics()
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [(b"host", b"localhost")]}
    asyncio.run(asyncio.wait_for(Guard(app, Settings(upload_timeout=0.1), metrics)(scope, nothing, deaf), 10))
    assert b'forearm_requests_total{route="other",status="499"} 1.0' in metrics.text()
