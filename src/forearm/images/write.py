"""Files that appear whole or not at all: a temporary file in the same folder, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Container, Iterable
from pathlib import Path

from forearm.errors import InputError
from forearm.images.folder import open_regular, sha256_of

TEMPORARY = ".forearm-*.part"


def temporary(out: Path) -> Path:
    """The temporary file of `out`: in the same folder, hidden, of a short name that follows from the name of `out`."""
    digest = hashlib.sha256(os.fsencode(out.name)).hexdigest()[:16]
    return out.with_name(TEMPORARY.replace("*", digest))


def stage(out: Path, data: bytes, mode: int) -> Path:
    """`data` in the temporary file of `out`, synced, with the permission bits `mode`. OSError leaves nothing behind."""
    out.parent.mkdir(parents=True, exist_ok=True)
    part = temporary(out)
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(file.fileno(), mode & 0o777)
            os.fsync(file.fileno())
    except OSError:
        discard(part)
        raise
    return part


def commit(part: Path, out: Path) -> None:
    """Give a staged file its name; an older file of that name is replaced in one step."""
    part.replace(out)
    sync_folder(out.parent)


def discard(part: Path) -> None:
    """Remove a temporary file if it is there and can be removed."""
    with contextlib.suppress(OSError):
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` survive a loss of power."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def back_up(source: Path, backup: Path, sha256: str) -> None:
    """A copy of `source` at `backup`, on disk, with permission bits and times, checked against `sha256`.

    A backup that is there already is kept: it must hold the same bytes, or InputError is raised and nothing is written.
    """
    if os.path.lexists(backup):
        if not backup.is_file() or sha256_of(backup) != sha256:
            raise InputError(
                f"{backup}: the backup folder holds another file of this name; an empty folder, for example --backup originals/"
            )
        return
    backup.parent.mkdir(parents=True, exist_ok=True)
    part = temporary(backup)
    try:
        with open_regular(source) as original, part.open("wb") as copy:
            shutil.copyfileobj(original, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        if sha256_of(part) != sha256:
            raise InputError(f"{source}: changed while it was backed up; a file that nobody writes to")
        shutil.copystat(source, part)
        commit(part, backup)
    finally:
        discard(part)


def sweep(folders: Iterable[Path], only: Container[Path] | None = None) -> int:
    """Remove the temporary files that a killed run left in `folders`, or those `only`; how many there were."""
    left = [part for folder in folders if folder.is_dir() for part in folder.glob(TEMPORARY) if only is None or part in only]
    for part in left:
        part.unlink(missing_ok=True)
    return len(left)
