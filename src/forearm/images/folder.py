"""Find the pictures of a folder without opening any, say what is left out and why, and read regular files."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import BinaryIO, Literal

from forearm.errors import SpecError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")
KINDS = {stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket", stat.S_IFCHR: "a device", stat.S_IFBLK: "a device"}
BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Found:
    """One entry of the inputs: a picture by name, or something left out with its reason."""

    name: str  # in the mirrored tree, with "/": "summer/beach.jpg"
    path: Path
    status: Literal["picture", "skipped", "failed"]
    reason: str = ""
    link: bool = False


def find(inputs: Sequence[Path], include: Sequence[str] = (), exclude: Sequence[str] = ()) -> list[Found]:
    """Every file below `inputs`, in order of name; nothing is opened.

    A folder is mirrored from itself down, a file stands at the top. Hidden entries are left out without a word.
    Globs match the whole name or any one part of it ("thumbs" is every folder of that name, "*.png" every PNG);
    `exclude` wins, and `include` may name files that are no picture by name. Links to regular files inside the input
    folder are followed, links to folders are not; a loop, a link that leads nowhere, a FIFO or a device is `failed`.
    An input that does not exist raises SpecError.
    """
    found: list[Found] = []
    for path in inputs:
        if not os.path.lexists(path):
            raise SpecError(f"inputs: got {str(path)!r}, which does not exist; a folder or a picture, for example photos/")
        if path.is_dir():
            found += _walk(path, include, exclude)
        else:
            found.append(choose(_judge(path, path.name, None), include, exclude))
    return found


def _walk(root: Path, include: Sequence[str], exclude: Sequence[str]) -> Iterator[Found]:
    """Depth first with a stack of its own: a path may hold more folders than Python allows calls."""
    real = os.path.realpath(root)
    stack = [""]
    while stack:
        name = stack.pop()
        path = root / name
        if name and not (path.is_dir() and not path.is_symlink()):
            yield choose(_judge(path, name, real), include, exclude)
        elif name and _matches(name, exclude):
            yield Found(name, path, "skipped", "excluded")
        else:
            try:
                below = sorted(child.name for child in path.iterdir() if not child.name.startswith("."))
            except OSError as error:
                yield Found(name or ".", path, "failed", f"the folder cannot be listed: {error.strerror}")
                continue
            stack += [f"{name}/{child}" if name else child for child in reversed(below)]


def _judge(path: Path, name: str, root: str | None) -> Found:
    """What an entry that is no folder is. `root`: links must stay inside it; None for a file that was given itself."""
    link = path.is_symlink()
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        # ELOOP, ENOENT: a loop, or a link that leads nowhere.
        return Found(name, path, "failed", f"cannot be reached: {getattr(error, 'strerror', None) or error}", link)
    if stat.S_ISDIR(mode):
        return _folder_link(path, name)
    if not stat.S_ISREG(mode):
        return Found(name, path, "failed", f"{KINDS.get(stat.S_IFMT(mode), 'not a regular file')}, never opened", link)
    if link and root is not None and not within(os.path.realpath(path), root):
        return Found(name, path, "skipped", "a link that leads out of the input folder; give its target as an input", link)
    return Found(name, path, "picture", "", link)


def _folder_link(path: Path, name: str) -> Found:
    if within(os.path.realpath(path.parent), os.path.realpath(path)):
        return Found(name, path, "failed", "a link to a folder that holds it: a loop", True)
    return Found(name, path, "skipped", "a link to a folder, not followed; give its target as an input", True)


def choose(entry: Found, include: Sequence[str], exclude: Sequence[str]) -> Found:
    """The entry after the globs and the rule of names."""
    if _matches(entry.name, exclude):
        return Found(entry.name, entry.path, "skipped", "excluded", entry.link)
    if entry.status != "picture":
        return entry
    if include:
        return entry if _matches(entry.name, include) else Found(entry.name, entry.path, "skipped", "not included", entry.link)
    if not entry.name.lower().endswith(SUFFIXES):
        return Found(entry.name, entry.path, "skipped", "not a picture by name", entry.link)
    return entry


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(part, pattern) for pattern in patterns for part in (name, *name.split("/")))


def within(path: str, folder: str) -> bool:
    """Whether the real path `path` is `folder` or lies below it."""
    return os.path.commonpath([path, folder]) == folder


def open_regular(path: Path) -> BinaryIO:
    """`path` opened for reading, if it is a regular file when opened; never waits on a FIFO. OSError otherwise."""
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(0, "not a regular file", str(path))
    return os.fdopen(handle, "rb")


def sha256_of(path: Path) -> str:
    """The sha256 of a regular file, in hex. One pass in blocks of 1 MiB."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()
