"""Claim: 10,000 hostile requests neither crash the service nor make it leak, and none is answered with a fault (500).

Half are made by schemathesis from the service's own OpenAPI schema (fitting and not fitting it), half are ours: the pictures and archives of the tests'
corpora, whole and damaged; paths, parameters, headers and forms that no client sends; bytes that are no HTTP; lines that break off. The service is
`forearm serve` in a process of its own, with one backward pass as the defence (`s_fgsm`), so that time goes into requests. Judged: no answer of 500 or
above but 503, every refusal a whole problem (RFC 9457), a picture armed to the same bytes before and after, and from half way to the end no growth of
memory by more than a tenth, of open files or threads by more than two (pools start theirs when they first need them), of
processes by any, and no file left behind. Needs the extras `service` and `dev`, and
`pip install schemathesis`.

    python benchmarks/hostile_requests.py [--requests 10000] [--seed 0]
"""

from __future__ import annotations

import argparse
import collections
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.images.corpus import FILES, sound
from tests.service.archives import HOSTILE, packed

from claim import record
from protect_folder import resident

IDLE = 6.0  # seconds; a line without a request is closed after 5
SPARE = 2  # threads and files that pools may still open after half way
POSTS = ("/v1/arm", "/v1/inspect", "/v1/arm/zip", "/v1/verify")
PATHS = (
    "/", "/health", "/ready", "/metrics", "/openapi.json", "/docs", "/v1", "/v1/", "/v1/arm/", "//v1/arm", "/v1/../health", "/page/../../app.py",
    "/page/%2e%2e/%2e%2e/app.py", "/page/page.js/..", "/%00", "/%ff%fe", "/v1/arm%2fzip", "/v1/models?x=" + "a" * 5000, "/" + "a/" * 2000, "/*", "/;/",
    "/v1/arm?label=%00", "/v1/arm?label=" + "%F0%9F%98%80" * 60, "/v1/arm?label=" + "x" * 900, "/v1/arm?tag=2&again=maybe", "/v1/arm?label=1&label=2",
    "/v1/arm?&&=&==", "/v1/arm?label=../../etc/passwd", "/v1/arm?label=http://127.0.0.1:1/", "/v1/arm?tag[]=1", "/v1/arm?label=%",
)  # fmt: skip
METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "PROPFIND", "get", "A" * 50)
HEADERS = (
    {"Host": "evil.example"}, {"Host": ""}, {"Host": "localhost:99999"}, {"Host": "[::1"}, {"Origin": "null"}, {"Origin": "http://evil.example"},
    {"Sec-Fetch-Site": "cross-site"}, {"Authorization": "Bearer x"}, {"Authorization": "\xff"}, {"Content-Type": "multipart/form-data"},
    {"Content-Type": "multipart/form-data; boundary=" + "b" * 300}, {"Content-Type": "a" * 2000}, {"Content-Type": "multipart/form-data; boundary=\xff"},
    {"Content-Length": "-1"}, {"Content-Length": "99999999999999999999"}, {"Content-Length": "1e3"}, {"Transfer-Encoding": "chunked, gzip"},
    {"Expect": "100-continue"}, {"Expect": "teapot"}, {"Upgrade": "websocket", "Connection": "Upgrade"}, {"Range": "bytes=0-0,-1"},
    {"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "evil.example"}, {"Cookie": "a=b; " * 500}, {"Accept": "*/*;q=-1"}, {"X": "y" * 20_000},
    {"Content-Encoding": "gzip"}, {"Accept-Encoding": "zip"}, {"Connection": "close"},
)  # fmt: skip
ARM = b"POST /v1/arm HTTP/1.1\r\nHost: localhost\r\n"
RAW = (
    b"", b"\0" * 100, b"\r\n" * 200, b"GET\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", b"GET / HTTP/0.9\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"A: b\r\n" * 20_000,
    b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n", b"GET / HTTP/1.1\r\nHost : localhost\r\n\r\n", b"GET / HTTP/1.1\r\n Host: localhost\r\n\r\n",
    ARM + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    ARM + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n",
    ARM + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nhello",
    ARM + b"Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    ARM + b"Content-Length: 1000\r\n\r\nshort",
    b"POST /v1/verify HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nabc",
    b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n" * 50, b"GET /health HTTP/1.0\r\nHost: localhost\r\n\r\n",
    b"GET http://evil.example/ HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"CONNECT evil.example:80 HTTP/1.1\r\nHost: localhost\r\n\r\n", b"GET * HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX: \x00\r\n\r\n",
)  # fmt: skip


@dataclass
class Tally:
    """What was sent and what came back."""

    sent: int = 0
    statuses: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)

    def take(self, what: str, status: int, kind: str, body: bytes) -> None:
        """One answer. Wrong: a fault, or a refusal that is no whole problem."""
        self.sent += 1
        self.statuses[str(status)] += 1
        if status >= 500 and status != 503:
            self.wrong.append(f"{what}: {status}")
        if status >= 400 and body:  # the answer to HEAD has none
            try:
                said = json.loads(body)
                whole = kind == "application/problem+json" and said["status"] == status and bool(said["detail"])
            except (ValueError, KeyError, TypeError):
                whole = False
            if not whole:
                self.wrong.append(f"{what}: {status} is no problem of RFC 9457")

    def silent(self) -> None:
        """A request that ended without an answer, as a broken one may."""
        self.sent += 1
        self.statuses["closed"] += 1


@contextmanager
def serving(scratch: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """`forearm serve` on a free port, its temporary files in `scratch`."""
    command = [sys.executable, "-m", "forearm", "serve", "--port", "0", "--defense", "s_fgsm"]
    path = scratch.parent / "log.txt"
    with path.open("w") as log, subprocess.Popen(command, stderr=log, env={**os.environ, "TMPDIR": str(scratch)}) as process:
        try:
            while not path.read_text().startswith("forearm serves"):
                if process.poll() is not None:
                    raise SystemExit(path.read_text())
                time.sleep(0.1)
            yield process, int(path.read_text().split()[2].rpartition(":")[2])
        finally:
            process.terminate()


def held(process: subprocess.Popen[bytes], port: int) -> dict[str, int]:
    """What the service holds once idle lines are closed: bytes of memory with its decoders, open files, threads, processes,
    places in the queue."""
    time.sleep(IDLE)
    folder = Path(f"/proc/{process.pid}")
    status, text, _ = exchange(port, "GET", "/metrics", None, {})
    lines = {line.rpartition(" ")[0]: line.rpartition(" ")[2] for line in text.decode().splitlines()} if status == 200 else {}
    return {
        "bytes": resident(process.pid),
        "files": len(list((folder / "fd").iterdir())),
        "threads": len(list((folder / "task").iterdir())),
        "children": len((folder / "task" / str(process.pid) / "children").read_text().split()),
        "inside": int(float(lines.get("forearm_requests_inside", "-1"))),
        "decoders_ended": int(float(lines.get("forearm_decoders_ended", "-1"))),
    }


def exchange(port: int, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, bytes, str]:
    """One request on a line of its own; status 0 where no answer came."""
    line = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        line.putrequest(method, path, skip_host="Host" in headers, skip_accept_encoding=True)
        sent = {name.lower() for name in headers}
        for name, value in headers.items():
            line.putheader(name, value.encode("latin-1"))
        if body is not None and not sent & {"content-length", "transfer-encoding"}:
            line.putheader("Content-Length", str(len(body)))
        line.endheaders(body)
        answer = line.getresponse()
        return answer.status, answer.read(), answer.headers.get("content-type", "")
    except (OSError, http.client.HTTPException):
        return 0, b"", ""
    finally:
        line.close()


def raw(port: int, data: bytes) -> tuple[int, bytes, str]:
    """Bytes as they are; then the sending side is closed."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=30) as line:
            line.sendall(data)
            line.shutdown(socket.SHUT_WR)
            answer = http.client.HTTPResponse(line)
            answer.begin()
            return answer.status, answer.read(), answer.headers.get("content-type", "")
    except (OSError, http.client.HTTPException, ValueError):
        return 0, b"", ""


def damaged(pick: random.Random, data: bytes) -> bytes:
    """`data` with bytes changed, cut out or put in."""
    result = bytearray(data)
    for _ in range(pick.randint(1, 6)):
        at = pick.randrange(len(result) + 1)
        result[at : at + pick.randint(0, 8)] = pick.randbytes(pick.randint(0, 8))
    return bytes(result[: pick.randrange(len(result) + 1)] if pick.random() < 0.2 else result)


def form(parts: dict[str, bytes]) -> tuple[bytes, dict[str, str]]:
    """A form with these files."""
    pieces = b"".join(
        b'--b\r\nContent-Disposition: form-data; name="%s"; filename="x"\r\n\r\n%s\r\n' % (name.encode(), data)
        for name, data in parts.items()
    )
    return pieces + b"--b--\r\n", {"Content-Type": "multipart/form-data; boundary=b"}


def ours(pick: random.Random) -> Callable[[int], tuple[str, tuple[int, bytes, str]]]:
    """One hostile request of our own."""
    kind = pick.choices(("picture", "archive", "path", "header", "form", "raw", "cut"), (30, 20, 12, 12, 10, 8, 8))[0]
    if kind == "picture":
        name = pick.choice(list(FILES))
        data = FILES[name]() if pick.random() < 0.3 else damaged(pick, FILES[name]())
        return lambda port: (f"picture {name!r}", exchange(port, "POST", pick.choice(POSTS[:2]), data, {}))
    if kind == "archive":
        name = pick.choice(list(HOSTILE))
        honest = packed(*((f"{n}.png", FILES[pick.choice(list(FILES))]()) for n in range(3)))
        data = HOSTILE[name][0]() if pick.random() < 0.4 else damaged(pick, honest) if pick.random() < 0.8 else honest
        return lambda port: (f"archive {name!r}", exchange(port, "POST", "/v1/arm/zip", data, {}))
    if kind == "path":
        method, path = pick.choice(METHODS), pick.choice((*PATHS, *POSTS))
        return lambda port: (f"{method} {path[:60]}", exchange(port, method, path, pick.choice((None, b"", sound("PNG"))), {}))
    if kind == "header":
        headers, path = pick.choice(HEADERS), pick.choice((*POSTS, "/health", "/"))
        return lambda port: (f"{path} {str(headers)[:60]}", exchange(port, "POST", path, sound("PNG"), headers))
    if kind == "form":
        names = pick.choice((("armed", "original"), ("armed",), ("armed", "armed2", "original"), ("original", "x"), ("",)))
        data, headers = form({name: pick.choice((sound("PNG"), sound("JPEG"), b"", damaged(pick, sound("PNG")))) for name in names})
        data = damaged(pick, data) if pick.random() < 0.5 else data
        return lambda port: (f"form {names}", exchange(port, "POST", "/v1/verify", data, headers))
    whole = ARM + b"Content-Length: %d\r\n\r\n%s" % (len(sound("PNG")), sound("PNG"))
    data = whole[: pick.randrange(len(whole))] if kind == "cut" else pick.choice(RAW) if pick.random() < 0.6 else damaged(pick, whole)
    return lambda port: (f"{kind} {data[:40]!r}", raw(port, data))


def generated(port: int, count: int, seed: int, tally: Tally) -> None:
    """`count` requests that schemathesis makes from the schema, half of them not fitting it."""
    import hypothesis
    import requests
    import schemathesis
    from schemathesis.generation import GenerationMode

    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{port}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    session = requests.Session()
    goal = tally.sent + count
    turn = 0
    while tally.sent < goal:
        operation, mode = operations[turn // 2 % len(operations)], list(GenerationMode)[turn % 2]
        turn += 1

        @hypothesis.seed(seed + turn)
        @hypothesis.settings(
            max_examples=min(50, goal - tally.sent), deadline=None, database=None, suppress_health_check=list(hypothesis.HealthCheck),
            phases=[hypothesis.Phase.generate],
        )  # fmt: skip
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def send(case: Any) -> None:
            if tally.sent >= goal:
                return
            try:
                answer = case.call(session=session, timeout=60)
            except requests.RequestException:
                tally.silent()
                return
            tally.take(f"{case.method} {case.path}", answer.status_code, answer.headers.get("content-type", [""])[0], answer.content)

        try:
            send()
        except hypothesis.errors.Unsatisfiable:  # what takes nothing cannot be sent what does not fit
            continue
        if turn > 20 * len(operations) and tally.sent == 0:
            raise SystemExit("schemathesis made no requests")


def main() -> None:
    parser = argparse.ArgumentParser(description="Hostile requests against the service.")
    parser.add_argument("--requests", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    tally, pick, crashed = Tally(), random.Random(given.seed), False
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder) / "scratch"
        scratch.mkdir()
        with serving(scratch) as (process, port):
            good = exchange(port, "POST", "/v1/arm", sound("PNG"), {})[:2]
            samples = [held(process, port)]
            for _ in range(4):  # both kinds from the first quarter on, so that half way is warm
                quarter = given.requests // 4
                for _ in range(quarter // 2):
                    what, (status, body, kind) = ours(pick)(port)
                    tally.take(what, status, kind, body) if status else tally.silent()
                generated(port, quarter - quarter // 2, given.seed + len(samples) * 1000, tally)
                samples.append(held(process, port))
            again = exchange(port, "POST", "/v1/arm", sound("PNG"), {})[:2]
            crashed = process.poll() is not None
            left = [path.name for path in scratch.iterdir()]
            faults = (scratch.parent / "log.txt").read_text().splitlines()[1:]
    half, end = samples[2], samples[-1]
    growth = end["bytes"] / half["bytes"] - 1
    few = all(end[name] <= half[name] + SPARE for name in ("files", "threads")) and end["children"] <= half["children"]
    steady = growth <= 0.1 and few and end["inside"] == 0
    record(
        "hostile_requests",
        f"{tally.sent} hostile requests (schemathesis and our own corpus) neither crash the service nor make it leak, and none is answered with a fault",
        len(tally.wrong),
        "answers that are a fault (500 or above, but 503) or no whole problem",
        n=tally.sent,
        at_most=0,
        holds=tally.sent >= given.requests - 8 and not crashed and steady and not left and good == again and good[0] == 200,
        details={
            "statuses": dict(sorted(tally.statuses.items())),
            "wrong": tally.wrong[:20],
            "crashed": crashed,
            "memory_growth_from_half": growth,
            "log_tail": faults[-20:],
            "held": samples,
            "files_left": left,
            "same_bytes_after": good == again,
        },
    )


if __name__ == "__main__":
    main()
