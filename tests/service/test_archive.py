"""A zip of pictures: what comes out, and which archives are never unpacked."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from forearm.jobs.single import protect_bytes
from forearm.jobs.workers import Refused
from forearm.service.reading import Listing, ReadMember, members, read_member
from forearm.service.settings import SERVED, ArchiveLimits
from tests.images.corpus import sound
from tests.jobs.armourers import Fake
from tests.service.archives import HOSTILE, packed
from tests.service.live import Live, problem, serving


@pytest.fixture(scope="module")
def live() -> Iterator[Live]:
    with serving(decoders=2, archive=ArchiveLimits(max_bytes=2**20, max_members=20, max_inflated=2**26)) as service:
        yield service


def sent(live: Live, data: bytes, query: str = "") -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """The files that come back, and the lines."""
    answer = live.client.post(f"/v1/arm/zip{query}", content=data)
    assert answer.status_code == 200, answer.text
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        files = {name: archive.read(name) for name in archive.namelist()}
    return files, [json.loads(line) for line in files.pop("forearm.jsonl").splitlines()]


def test_members_become_what_each_becomes_alone(live: Live) -> None:
    names = {"a.png": "PNG", "summer/b.JPG": "JPEG", "summer/c.webp": "WEBP", "d\u00e9.tif": "TIFF", "e.bmp": "BMP"}
    files, lines = sent(live, packed(*((name, sound(kind)) for name, kind in names.items())))
    assert list(files) == list(names)
    for name, kind in names.items():
        assert files[name] == protect_bytes(sound(kind), Fake())[0]
    assert [line["file"] for line in lines] == list(names)
    assert {line["status"] for line in lines} == {"armed"}
    assert {line["key"] for line in lines} == {None}


def test_what_is_wrong_with_a_member_costs_that_member(live: Live) -> None:
    armed = protect_bytes(sound("PNG"), Fake())[0]
    inner = packed(("x.png", sound("PNG")))
    data = packed(
        ("good.png", sound("PNG")), ("armed.png", armed), ("damaged.png", sound("PNG")[:50]), ("nested.zip", inner), ("nested.png", inner),
        ("notes.txt", b"hello"), ("folder/", b""), (".hidden.png", sound("PNG")), ("__MACOSX/._good.png", b"x"), ("flat.png", bytes(2**25)),
    )  # fmt: skip
    files, lines = sent(live, data)
    said = {line["file"]: (line["status"], line["reason"]) for line in lines}
    assert list(files) == ["good.png"]
    assert {name: status for name, (status, _) in said.items()} == {
        "good.png": "armed", "armed.png": "skipped", "damaged.png": "failed", "nested.zip": "skipped", "nested.png": "failed",
        "notes.txt": "skipped", "flat.png": "failed",
    }  # fmt: skip
    assert "ZIP archive" in said["nested.png"][1]
    assert "already armed" in said["armed.png"][1]
    again, _ = sent(live, data, "?again=true")
    assert set(again) == {"good.png", "armed.png"}


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_archives_are_refused_whole(live: Live, kind: str) -> None:
    make, says = HOSTILE[kind]
    before = len(live.armourer.batches)
    assert says in problem(live.client.post("/v1/arm/zip", content=make()), 422)
    assert len(live.armourer.batches) == before


def test_a_large_archive_is_refused_before_it_is_read(live: Live) -> None:
    problem(live.client.post("/v1/arm/zip", content=bytes(2**20 + 1)), 413)


def test_a_lying_size_is_seen(tmp_path: Path) -> None:
    data = bytearray(packed(("a.png", bytes(2**24))))
    for at in (22, data.index(b"PK\x01\x02") + 24):
        data[at : at + 4] = struct.pack("<I", 10)
    (tmp_path / "a.zip").write_bytes(data)
    found = members(Listing(tmp_path / "a.zip", ArchiveLimits()))
    assert not isinstance(found, Refused)
    assert [member.name for member in found] == ["a.png"]
    answer = read_member(ReadMember(tmp_path / "a.zip", "a.png", SERVED))
    assert isinstance(answer, Refused)


def test_members_are_sent_on_as_they_are_done() -> None:
    with serving(Fake(sleep=0.3)) as service:
        data = packed(*((f"{n}.png", sound("PNG")) for n in range(5)))
        with service.client.stream("POST", "/v1/arm/zip", content=data) as answer:
            pieces = answer.iter_raw()
            first = next(pieces)
            assert first.startswith(b"PK\3\4")
            assert len(service.armourer.batches) < 5
            rest = b"".join(pieces)
        with zipfile.ZipFile(io.BytesIO(first + rest)) as archive:
            assert len(archive.namelist()) == 6


def test_who_hangs_up_stops_the_archive() -> None:
    with serving(Fake(sleep=0.2)) as service:
        data = packed(*((f"{n}.png", sound("PNG")) for n in range(15)))
        with service.client.stream("POST", "/v1/arm/zip", content=data) as answer:
            next(answer.iter_raw())
        report = service.client.post("/v1/arm", content=sound("JPEG"))
        assert report.status_code == 200
        assert len(service.armourer.batches) < 8
        assert service.metric("forearm_requests_inside") == 0
