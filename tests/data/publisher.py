"""A publisher on this machine: serves bytes by name over HTTP, with the faults that real ones have."""

from __future__ import annotations

import hashlib
import http.server
import io
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from forearm.data.catalogue import Entry, File


@dataclass
class Publisher:
    """`files`: what is served; `asked`: name and Range of every request; `cut`: an answer ends after so many bytes of its body."""

    url: str = ""
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)
    cut: int | None = None
    ranges: bool = True
    says_length: bool = True

    def file(self, name: str, content: bytes, *, unpacked: int = 0, sha256: str = "") -> File:
        """A file that is served, and its line of the catalogue."""
        self.files[name] = content
        return File(name, (f"{self.url}/{name}",), len(content), hashlib.md5(content).hexdigest(), sha256, unpacked)


def entry(*files: File) -> Entry:
    return Entry("a set", {"test": 2}, "3 x 32 x 32", 10, "nowhere", "none", files)


def _handler(publisher: Publisher) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            name, asked = self.path.lstrip("/"), self.headers.get("Range", "")
            publisher.asked.append((name, asked))
            if name not in publisher.files:
                self.send_error(404)
                return
            content = publisher.files[name]
            start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and publisher.ranges else 0
            if start and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            if publisher.says_length:
                self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = len(content) if publisher.cut is None else start + publisher.cut
            with suppress(ConnectionError):  # a client that has had enough
                self.wfile.write(content[start:end])

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@contextmanager
def publishing() -> Iterator[Publisher]:
    """A publisher at work."""
    publisher = Publisher()
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(publisher))
    publisher.url = f"http://127.0.0.1:{server.server_address[1]}"
    worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    worker.start()
    try:
        yield publisher
    finally:
        server.shutdown()
        server.server_close()
        worker.join()


def tar(files: dict[str, bytes], *extra: tarfile.TarInfo) -> bytes:
    """A tar.gz of files, and members of other kinds."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return out.getvalue()


def zipped(files: dict[str, bytes], modes: dict[str, int] | None = None) -> bytes:
    """A zip of files; `modes`: the Unix modes of some."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = (modes or {}).get(name, 0o100644) << 16
            archive.writestr(member, content)
    return out.getvalue()
