"""Fetching from a publisher on this machine: resumed, checked, unpacked safely, in place whole or not at all."""

from __future__ import annotations

import hashlib
import json
import re
import stat
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from forearm.data.catalogue import CATALOGUE
from forearm.data.fetch import RECORD, changed, fetch
from forearm.data.sets import DATASETS
from forearm.data.unpack import FetchError
from tests.data.publisher import Publisher, entry, publishing, tar, zipped

CONTENT = bytes(range(256)) * 40
TREE = {"cifar/data_batch_1": b"one" * 100, "cifar/deep/er": b"two", "readme.txt": b"three"}


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setenv("no_proxy", "*")
    with publishing() as one:
        yield one


def held(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, the record aside."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != RECORD}


def test_a_plain_file_is_fetched_once_and_recorded(publisher: Publisher, tmp_path: Path) -> None:
    one = entry(publisher.file("a.mat", CONTENT))
    seen: list[tuple[str, int, int]] = []
    assert fetch("a", one, tmp_path / "a", report=lambda *progress: seen.append(progress)) == ("a.mat",)
    assert held(tmp_path / "a") == {"a.mat": CONTENT}
    assert seen[-1] == ("a.mat", len(CONTENT), len(CONTENT))
    record = json.loads((tmp_path / "a" / RECORD).read_text())["files"]["a.mat"]
    assert record["sha256"] == record["paths"]["a.mat"]["sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert record["url"] == f"{publisher.url}/a.mat"
    assert changed(tmp_path / "a") == []
    assert fetch("a", one, tmp_path / "a") == ()
    assert publisher.asked == [("a.mat", "")]


@pytest.mark.parametrize("kind", ["tar", "zip"])
def test_archives_are_unpacked_and_what_changes_is_seen(kind: str, publisher: Publisher, tmp_path: Path) -> None:
    content = tar(TREE) if kind == "tar" else zipped(TREE)
    one = entry(publisher.file("a.tar.gz" if kind == "tar" else "a.zip", content, unpacked=1000))
    fetch("a", one, tmp_path)
    assert held(tmp_path) == TREE
    assert changed(tmp_path) == []
    (tmp_path / "cifar" / "deep" / "er").write_bytes(b"tw0")
    assert changed(tmp_path) == ["cifar"]
    (tmp_path / "cifar" / "deep" / "er").write_bytes(b"two")
    (tmp_path / "cifar" / "new").write_bytes(b"")
    assert changed(tmp_path) == ["cifar"]
    (tmp_path / "readme.txt").unlink()
    assert changed(tmp_path) == ["cifar", "readme.txt"]
    assert fetch("a", one, tmp_path) == (one.files[0].name,)  # what it put there itself it may put there again
    assert held(tmp_path) == TREE


def test_a_broken_connection_is_continued(publisher: Publisher, tmp_path: Path) -> None:
    one = entry(publisher.file("a.mat", CONTENT))
    publisher.cut = 4000
    assert fetch("a", one, tmp_path, pause=0) == ("a.mat",)
    assert [asked for _, asked in publisher.asked] == ["", "bytes=4000-", "bytes=8000-"]
    assert held(tmp_path) == {"a.mat": CONTENT}


def test_a_killed_fetch_is_continued(publisher: Publisher, tmp_path: Path) -> None:
    one = entry(publisher.file("a.mat", CONTENT))
    (tmp_path / "a.mat.part").write_bytes(CONTENT[:5000])
    fetch("a", one, tmp_path)
    assert publisher.asked == [("a.mat", "bytes=5000-")]
    assert held(tmp_path) == {"a.mat": CONTENT}


def test_a_publisher_without_ranges_begins_anew(publisher: Publisher, tmp_path: Path) -> None:
    publisher.ranges = False
    (tmp_path / "a.mat.part").write_bytes(CONTENT[:5000])
    fetch("a", entry(publisher.file("a.mat", CONTENT)), tmp_path)
    assert held(tmp_path) == {"a.mat": CONTENT}


@pytest.mark.parametrize("left", [b"another file" * 100, b"x" * len(CONTENT), b"x" * (len(CONTENT) + 1)])
def test_a_part_of_another_file_does_not_stay(left: bytes, publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "a.mat.part").write_bytes(left)
    fetch("a", entry(publisher.file("a.mat", CONTENT)), tmp_path, pause=0)
    assert held(tmp_path) == {"a.mat": CONTENT}


@pytest.mark.parametrize("wrong", ["md5", "sha256"])
def test_another_file_is_refused_and_nothing_stays(wrong: str, publisher: Publisher, tmp_path: Path) -> None:
    file = replace(publisher.file("a.mat", CONTENT), **{wrong: "0" * 32})
    with pytest.raises(FetchError, match="gave another file") as caught:
        fetch("a", entry(file), tmp_path, pause=0)
    assert "\n" not in str(caught.value)
    assert held(tmp_path) == {}


@pytest.mark.parametrize("says_length", [True, False])
def test_a_longer_file_is_not_taken(says_length: bool, publisher: Publisher, tmp_path: Path) -> None:
    file = publisher.file("a.mat", CONTENT)
    publisher.files["a.mat"] = CONTENT * 1000
    publisher.says_length = says_length
    with pytest.raises(FetchError, match=r"as published"):
        fetch("a", entry(file), tmp_path, pause=0)
    assert sum(map(len, held(tmp_path).values())) <= len(CONTENT)


def test_a_shorter_file_is_not_taken(publisher: Publisher, tmp_path: Path) -> None:
    file = publisher.file("a.mat", CONTENT)
    publisher.files["a.mat"] = CONTENT[:-1]
    for says_length in (True, False):
        publisher.says_length = says_length
        with pytest.raises(FetchError, match="could not get"):
            fetch("a", entry(file), tmp_path, pause=0)
    assert not (tmp_path / "a.mat").exists()


def test_the_next_address_is_tried(publisher: Publisher, tmp_path: Path) -> None:
    file = publisher.file("a.mat", CONTENT)
    moved = replace(file, urls=("http://127.0.0.1:9/a.mat", f"{publisher.url}/gone.mat", *file.urls))
    fetch("a", entry(moved), tmp_path, pause=0)
    assert held(tmp_path) == {"a.mat": CONTENT}
    assert [name for name, _ in publisher.asked] == ["gone.mat", "a.mat"]


def test_no_network_is_one_clear_line(publisher: Publisher, tmp_path: Path) -> None:
    file = replace(publisher.file("a.mat", CONTENT), urls=("http://127.0.0.1:9/a.mat", f"{publisher.url}/gone.mat"))
    with pytest.raises(FetchError) as caught:
        fetch("a", entry(file), tmp_path, pause=0)
    told = str(caught.value)
    assert re.fullmatch(
        r"fetch a: could not get http.*refused\) or http.*\(HTTP 404 .*\); a network, or the file put into .* by hand .*", told
    )


def test_a_file_put_there_by_hand_needs_no_network(publisher: Publisher, tmp_path: Path) -> None:
    archive = tar(TREE)
    one = entry(publisher.file("a.tar.gz", archive, unpacked=1000), publisher.file("b.mat", CONTENT))
    (tmp_path / "a.tar.gz").write_bytes(archive)
    (tmp_path / "b.mat").write_bytes(CONTENT)
    assert fetch("a", one, tmp_path) == ("a.tar.gz", "b.mat")
    assert publisher.asked == []
    assert held(tmp_path) == TREE | {"a.tar.gz": archive, "b.mat": CONTENT}
    assert changed(tmp_path) == []


def test_what_is_the_users_own_is_not_touched(publisher: Publisher, tmp_path: Path) -> None:
    one = entry(publisher.file("a.tar.gz", tar(TREE), unpacked=1000))
    (tmp_path / "cifar").mkdir()
    (tmp_path / "cifar" / "mine").write_bytes(b"mine")
    with pytest.raises(FetchError, match=r"cifar: is there already, .*move it away"):
        fetch("a", one, tmp_path)
    assert {name: held(tmp_path)[name] for name in held(tmp_path) if not name.endswith(".part")} == {"cifar/mine": b"mine"}
    (tmp_path / "b.mat").write_bytes(b"mine")
    with pytest.raises(FetchError, match=r"b\.mat is another file than was published"):
        fetch("a", entry(publisher.file("b.mat", CONTENT)), tmp_path)
    assert (tmp_path / "b.mat").read_bytes() == b"mine"


def test_a_kill_between_unpacking_and_recording_is_no_obstacle(publisher: Publisher, tmp_path: Path) -> None:
    one = entry(publisher.file("a.tar.gz", tar(TREE), unpacked=1000))
    fetch("a", one, tmp_path)
    (tmp_path / RECORD).unlink()
    (tmp_path / ".a.tar.gz.unpacking").mkdir()
    (tmp_path / ".a.tar.gz.unpacking" / "half").write_bytes(b"h")
    assert fetch("a", one, tmp_path) == ("a.tar.gz",)
    assert held(tmp_path) == TREE


def link(name: str, kind: bytes, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


HOSTILE = {
    "a name above, tar": ("a.tar.gz", tar({"../evil": b"x"}), "leads out"),
    "a name inside and above, tar": ("a.tar.gz", tar({"a/../../evil": b"x"}), "leads out"),
    "an absolute name, tar": ("a.tar.gz", tar({"/tmp/evil": b"x"}), "leads out"),
    "a symbolic link, tar": ("a.tar.gz", tar({}, link("a", tarfile.SYMTYPE, "/etc")), "a link or a device"),
    "a hard link, tar": ("a.tar.gz", tar({"b": b"x"}, link("a", tarfile.LNKTYPE, "b")), "a link or a device"),
    "a device, tar": ("a.tar.gz", tar({}, link("a", tarfile.CHRTYPE, "")), "a link or a device"),
    "too many bytes, tar": ("a.tar.gz", tar({"a": bytes(1001)}), "1001 bytes in 1 members; up to 1000"),
    "too many bytes together, tar": ("a.tar.gz", tar({"a": bytes(600), "b": bytes(600)}), "1200 bytes in 2 members"),
    "no tar": ("a.tar.gz", b"no archive", "not a readable archive"),
    "half a tar": ("a.tar.gz", tar({"a": hashlib.shake_256(b"a").digest(900)})[:500], "not a readable archive"),
    "a name above, zip": ("a.zip", zipped({"../evil": b"x"}), "leads out"),
    "an absolute name, zip": ("a.zip", zipped({"/tmp/evil": b"x"}), "leads out"),
    "a name above with the other slash, zip": ("a.zip", zipped({"..\\evil": b"x"}), "leads out"),
    "a drive, zip": ("a.zip", zipped({"C:/evil": b"x"}), "leads out"),
    "a symbolic link, zip": ("a.zip", zipped({"a": b"/etc"}, {"a": stat.S_IFLNK | 0o777}), "a link or a device"),
    "too many bytes, zip": ("a.zip", zipped({"a": bytes(1001)}), "1001 bytes in 1 members; up to 1000"),
    "a wrong check sum, zip": ("a.zip", zipped({"a": b"x" * 99}).replace(b"PK\x01\x02", b"PK\x01\x03"), "not a readable archive"),
    "no zip": ("a.zip", b"no archive", "not a readable archive"),
}


@pytest.mark.parametrize(("name", "content", "why"), HOSTILE.values(), ids=list(HOSTILE))
def test_hostile_archives_are_refused(name: str, content: bytes, why: str, publisher: Publisher, tmp_path: Path) -> None:
    folder = tmp_path / "inside" / "folder"
    with pytest.raises(FetchError, match=why) as caught:
        fetch("a", entry(publisher.file(name, content, unpacked=1000)), folder)
    assert "\n" not in str(caught.value)
    assert [p for p in tmp_path.rglob("*") if p.is_file() and p.suffix != ".part"] == []
    assert not Path("/tmp/evil").exists()


def test_a_damaged_record_is_told(publisher: Publisher, tmp_path: Path) -> None:
    one = entry(publisher.file("a.mat", CONTENT))
    for text in ("", "[]", '{"files": {"a.mat": {"md5": "", "paths": {"../x": null}}}}', '{"files": {"a.mat": {"paths": {}}}}'):
        (tmp_path / RECORD).write_text(text)
        with pytest.raises(FetchError, match="not a record of what was fetched"):
            fetch("a", one, tmp_path)


def test_a_folder_that_cannot_be_written_is_told(publisher: Publisher, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(FetchError, match="a folder that can be written"):
        fetch("a", entry(publisher.file("a.mat", CONTENT)), tmp_path / "file" / "a")


def test_the_catalogue_is_whole() -> None:
    """A row for every reader, and check sums of the right form; their values are the publishers'."""
    assert set(CATALOGUE) == set(DATASETS)
    for row in CATALOGUE.values():
        for file in row.files:
            assert re.fullmatch(r"[0-9a-f]{32}", file.md5)
            assert re.fullmatch(r"[0-9a-f]{64}|", file.sha256)
            assert all(re.fullmatch(r"https?://[\w./~-]+", url) and url.endswith(f"/{file.name}") for url in file.urls)
            assert bool(file.unpacked) == file.name.endswith((".zip", ".tgz", ".tar.gz"))
            assert 0 < file.size < 400 * 2**20
    sums = [file.md5 for row in CATALOGUE.values() for file in row.files]
    assert len(sums) == len(set(sums))
