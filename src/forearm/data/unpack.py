"""Archives: every member is looked at before it is written, and what comes out is put in place whole."""

from __future__ import annotations

import lzma
import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from forearm.data.catalogue import File
from forearm.errors import ForearmError

MEMBERS = 500_000


class FetchError(ForearmError):
    """A published file that cannot be had, or is another one than was published."""


def unpack(source: Path, folder: Path, file: File, replaceable: frozenset[str]) -> list[str]:
    """Unpack an archive (zip or tar by its name) into `folder`; the names of what lies there now.

    It is unpacked aside and renamed into place, so that a name is there whole or not at all. Refused with FetchError, and nothing in
    place is touched: links and devices, names that lead elsewhere, more than `file.unpacked` bytes or `MEMBERS` members, and a name
    that is there already with other content, unless it is `replaceable` (an earlier fetch put it there).
    """
    aside, old = folder / f".{file.name}.unpacking", folder / f".{file.name}.old"
    for left in (aside, old):
        shutil.rmtree(left, ignore_errors=True)
    aside.mkdir()
    try:
        (_unzip if file.name.endswith(".zip") else _untar)(source, aside, file)
        tops = sorted(path.name for path in aside.iterdir())
        for top in tops:
            if (folder / top).exists() and top not in replaceable and not _same(aside / top, folder / top):
                raise FetchError(f"{folder / top}: is there already, and not as {file.name} has it; move it away and fetch again")
        old.mkdir()
        for top in tops:
            if (folder / top).exists():
                (folder / top).replace(old / top)
            (aside / top).replace(folder / top)
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError, RuntimeError) as error:
        raise FetchError(f"{source}: not a readable archive ({' '.join(str(error).split())}); {file.name}, as published") from None
    finally:
        for left in (aside, old):
            shutil.rmtree(left, ignore_errors=True)
    return tops


def _untar(source: Path, aside: Path, file: File) -> None:
    with tarfile.open(source) as archive:
        total = 0
        for number, member in enumerate(archive):
            total += member.size
            _check(file, member.name, member.isfile() or member.isdir(), number, total)
            archive.extract(member, aside, filter="data")


def _unzip(source: Path, aside: Path, file: File) -> None:
    with zipfile.ZipFile(source) as archive:
        total = 0
        for number, member in enumerate(archive.infolist()):
            total += member.file_size
            kind = stat.S_IFMT(member.external_attr >> 16)
            _check(file, member.filename, kind in (0, stat.S_IFREG, stat.S_IFDIR), number, total)
            archive.extract(member, aside)


def _check(file: File, name: str, plain: bool, number: int, total: int) -> None:
    parts = PurePosixPath(name.replace("\\", "/"))
    if not plain:
        raise FetchError(f"{file.name}: the member {name!r} is a link or a device; files and folders alone")
    if parts.is_absolute() or ".." in parts.parts or ":" in name or not parts.parts:
        raise FetchError(f"{file.name}: the member {name!r} leads out of the folder; names within it, for example 'train/1.jpg'")
    if total > file.unpacked or number >= MEMBERS:
        raise FetchError(f"{file.name}: {total} bytes in {number + 1} members; up to {file.unpacked} bytes in {MEMBERS}")


def _same(one: Path, other: Path) -> bool:
    """Whether two files or folders hold the same names and bytes."""
    if one.is_file() or other.is_file():
        return one.is_file() and other.is_file() and one.read_bytes() == other.read_bytes()
    names = [sorted(p.relative_to(top) for p in top.rglob("*")) for top in (one, other)]
    return names[0] == names[1] and all(_same(one / name, other / name) for name in names[0] if (one / name).is_file())
