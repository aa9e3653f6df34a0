"""What is found in a folder, by name and kind alone."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from forearm.errors import SpecError
from forearm.images.folder import find, open_regular, sha256_of, within
from forearm.images.write import TEMPORARY, back_up, commit, stage, sweep, temporary


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(path.name.encode(errors="surrogateescape"))
    return path


def statuses(root: Path, **options: tuple[str, ...]) -> dict[str, str]:
    return {entry.name: entry.status for entry in find([root], **options)}


def test_names_in_order_and_kinds_by_name(tmp_path: Path) -> None:
    for name in ("b.jpg", "a/z.PNG", "a/y.webp", "c.txt", "d.tiff", ".h.png", "a/.cache/x.png", ".forearm/journal.jsonl", "none"):
        touch(tmp_path / name)
    assert [(e.name, e.status) for e in find([tmp_path])] == [
        ("a/y.webp", "picture"),
        ("a/z.PNG", "picture"),
        ("b.jpg", "picture"),
        ("c.txt", "skipped"),
        ("d.tiff", "picture"),
        ("none", "skipped"),
    ]


def test_a_folder_called_like_a_picture_is_entered(tmp_path: Path) -> None:
    touch(tmp_path / "x.jpg" / "y.jpg")
    assert statuses(tmp_path) == {"x.jpg/y.jpg": "picture"}


def test_links(tmp_path: Path) -> None:
    root = tmp_path / "in"
    touch(root / "sub/a.png")
    touch(tmp_path / "outside.png")
    (root / "near.png").symlink_to("sub/a.png")
    (root / "far.png").symlink_to("../outside.png")
    (root / "lost.png").symlink_to("nowhere.png")
    (root / "one.png").symlink_to("two.png")
    (root / "two.png").symlink_to("one.png")
    (root / "folder").symlink_to("sub")
    (root / "sub/loop").symlink_to("..")
    assert statuses(root) == {
        "sub/a.png": "picture",
        "near.png": "picture",
        "far.png": "skipped",
        "lost.png": "failed",
        "one.png": "failed",
        "two.png": "failed",
        "folder": "skipped",
        "sub/loop": "failed",
    }
    assert [entry.status for entry in find([root / "far.png"])] == ["picture"]
    assert {entry.name for entry in find([root / "folder"])} == {"a.png", "loop"}


def test_special_files_are_never_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket.png"))
        assert statuses(tmp_path) == {"pipe.jpg": "failed", "socket.png": "failed"}
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path / "pipe.jpg")
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(tmp_path)


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        ((), ("a",), {"b.jpg"}),
        ((), ("*.jpg",), set()),
        (("a/*",), (), {"a/x.jpg", "a/deep/y.jpg"}),
        (("deep",), (), {"a/deep/y.jpg"}),
        (("*.raw",), (), {"c.raw"}),
        (("*.jpg",), ("deep",), {"a/x.jpg", "b.jpg"}),
    ],
)
def test_globs(tmp_path: Path, include: tuple[str, ...], exclude: tuple[str, ...], expected: set[str]) -> None:
    for name in ("a/x.jpg", "a/deep/y.jpg", "b.jpg", "c.raw"):
        touch(tmp_path / name)
    found = statuses(tmp_path, include=include, exclude=exclude)
    assert {name for name, status in found.items() if status == "picture"} == expected
    assert set(found.values()) <= {"picture", "skipped"}


def test_strange_names(tmp_path: Path) -> None:
    names = {"-o.png", "new\nline.png", "u\u00e9.png", os.fsdecode(b"\xff.png"), " .png"}
    for name in names:
        touch(tmp_path / name)
    assert set(statuses(tmp_path)) == names


def test_deep_folders(tmp_path: Path) -> None:
    path = tmp_path.joinpath(*"d" * 300)
    path.mkdir(parents=True)
    assert statuses(tmp_path) == {}
    touch(path / "x.png")
    assert list(statuses(tmp_path).values()) == ["picture"]


def test_inputs_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="does not exist"):
        find([tmp_path / "no"])


def test_within() -> None:
    assert within("/a/b", "/a")
    assert within("/a", "/a")
    assert within("/a", "/")
    assert not within("/ab", "/a")


def test_writing_whole(tmp_path: Path) -> None:
    out = tmp_path / "sub" / ("n" * 250 + ".png")
    part = stage(out, b"data", 0o4640)
    assert not out.exists()
    assert part.parent == out.parent
    assert part.match(TEMPORARY)
    commit(part, out)
    assert out.read_bytes() == b"data"
    assert out.stat().st_mode & 0o7777 == 0o640
    assert list(out.parent.iterdir()) == [out]


def test_backups(tmp_path: Path) -> None:
    source = touch(tmp_path / "a.png")
    os.utime(source, (1, 2))
    back_up(source, tmp_path / "b/a.png", sha256_of(source))
    assert (tmp_path / "b/a.png").read_bytes() == source.read_bytes()
    assert (tmp_path / "b/a.png").stat().st_mtime == 2
    from forearm.errors import InputError

    with pytest.raises(InputError, match="changed while"):
        back_up(source, tmp_path / "c/a.png", "0" * 64)
    assert list((tmp_path / "c").iterdir()) == []


def test_sweep_takes_only_its_own(tmp_path: Path) -> None:
    touch(temporary(tmp_path / "a.png"))
    touch(tmp_path / "a.part")
    assert sweep([tmp_path, tmp_path / "no"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["a.part"]
