"""What the decoder processes do with bytes from outside. Nothing here imports torch, so that they start fast and stay small."""

from __future__ import annotations

import hashlib
import stat
import time
import unicodedata
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from forearm.errors import InputError
from forearm.images.codec import decode
from forearm.images.folder import SUFFIXES
from forearm.images.limits import Limits
from forearm.images.picture import Picture
from forearm.images.provenance import Tag, tag_of
from forearm.jobs.workers import Refused, cause
from forearm.service.settings import ArchiveLimits

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1  # flag bits of a member
LONGEST_NAME = 1024


@dataclass(frozen=True, slots=True)
class Read:
    """A picture file in memory."""

    data: bytes
    limits: Limits


@dataclass(frozen=True, slots=True)
class Opened:
    """A decoded file: its picture, the tag that an earlier arming left, and the file's sha256."""

    picture: Picture
    tag: Tag | None
    sha256: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Listing:
    """An archive on disk whose members are asked for."""

    path: Path
    limits: ArchiveLimits


@dataclass(frozen=True, slots=True)
class Member:
    """One file of an archive. `skipped`: why it is left out, or empty. `date`: as the archive has it."""

    name: str
    date: tuple[int, int, int, int, int, int]
    skipped: str = ""


@dataclass(frozen=True, slots=True)
class ReadMember:
    """A picture file inside an archive on disk."""

    path: Path
    name: str
    limits: Limits


def read(request: Read) -> Opened | Refused:
    """Decode one file within its limits. Whatever is wrong with it comes back as the reason."""
    started = time.perf_counter()
    try:
        picture, tag = decode(request.data, request.limits), tag_of(request.data, request.limits)
    except Exception as error:  # a hostile file may raise anything
        return Refused(cause(error))
    return Opened(picture, tag, hashlib.sha256(request.data).hexdigest(), time.perf_counter() - started)


def look(request: Read) -> dict[str, Any] | Refused:
    """What a picture file is and with what it is armed: the facts of `forearm inspect`, but for the file's name."""
    opened = read(request)
    if isinstance(opened, Refused):
        return opened
    picture = opened.picture
    return {
        "format": picture.format,
        "mode": picture.mode,
        "width": picture.width,
        "height": picture.height,
        "lossless": picture.lossless,
        "orientation": picture.orientation,
        "warnings": list(picture.warnings),
        "armed": opened.tag,
    }


def members(request: Listing) -> tuple[Member, ...] | Refused:
    """The files of an archive in its order; hidden ones are left out without a word.

    The whole archive is refused for anything that no honest one has: names that lead out of it, links and devices,
    encryption, methods other than store and deflate, two members of one name (also where only case or accents differ in
    their coding), members that overlap, and more members or bytes than `limits`. Archives inside are never opened.
    """
    try:
        with zipfile.ZipFile(request.path) as archive:
            entries = archive.infolist()
        check_sizes(entries, request.path.stat().st_size, request.limits)
        for entry in entries:
            check_entry(entry)
        check_names([entry.filename for entry in entries])
    except Exception as error:  # a hostile archive may raise anything
        return Refused(archive_cause(error))
    files = [e for e in entries if not e.is_dir() and not any(part.startswith((".", "__MACOSX")) for part in e.filename.split("/"))]
    return tuple(Member(e.filename, e.date_time, "" if e.filename.lower().endswith(SUFFIXES) else "not a picture by name") for e in files)


def archive_cause(error: Exception) -> str:
    """Why an archive cannot be read, in one line."""
    if isinstance(error, InputError):
        return f"archive: {error}"
    if isinstance(error, zipfile.BadZipFile):
        return f"archive: no whole zip archive ({cause(error)}); a zip of pictures, for example photos.zip"
    return f"archive: cannot be read ({cause(error)}); a zip of pictures, for example photos.zip"


def check_sizes(entries: Sequence[zipfile.ZipInfo], size: int, limits: ArchiveLimits) -> None:
    """Refuse archives of too many members or bytes, and those whose members share their bytes (InputError)."""
    if len(entries) > limits.max_members:
        raise InputError(f"{len(entries)} members; up to {limits.max_members}, for example two archives")
    total = sum(entry.file_size for entry in entries)
    if total > limits.max_inflated:
        raise InputError(f"{total} bytes unpacked; up to {limits.max_inflated}, for example two archives")
    if sum(entry.compress_size for entry in entries) > size:
        raise InputError("members that overlap; each in its own place, for example packed anew")


def check_entry(entry: zipfile.ZipInfo) -> None:
    """Refuse a member whose name leads elsewhere, or that is not a plain file or folder (InputError)."""
    name = entry.orig_filename
    shown = ascii(name[:80])
    if entry.flag_bits & ENCRYPTED:
        raise InputError(f"{shown} is encrypted; members without a password, for example packed anew")
    if entry.compress_type not in METHODS:
        raise InputError(f"{shown} is packed by method {entry.compress_type}; stored or deflated, for example packed anew")
    if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise InputError(f"{shown} is a link or a device; files and folders, for example packed anew")
    parts = name.removesuffix("/").split("/")
    strange = not name.isprintable() or any(mark in name for mark in "\\:")
    if strange or not 0 < len(name.encode("utf-8", "surrogatepass")) <= LONGEST_NAME or not {"", ".", ".."}.isdisjoint(parts):
        raise InputError(f"the name {shown} may lead out of the archive; plain relative names, for example summer/beach.jpg")


def check_names(names: Sequence[str]) -> None:
    """Refuse two members that some file system would take for one (InputError)."""
    seen: dict[str, str] = {}
    for name in names:
        folded = unicodedata.normalize("NFC", name.removesuffix("/")).casefold()
        if folded in seen:
            raise InputError(f"two members called {seen[folded][:80]!a} and {name[:80]!a}; one of each name, whatever its case")
        seen[folded] = name


def read_member(request: ReadMember) -> Opened | Refused:
    """Unpack one member within the limits of a file, and decode it."""
    limits = request.limits
    try:
        with zipfile.ZipFile(request.path) as archive, archive.open(request.name) as file:
            data = file.read(limits.max_bytes + 1)
    except Exception as error:  # damaged streams raise zlib.error, EOFError, BadZipFile and others
        return Refused(f"cannot be unpacked ({cause(error)}); a whole member, for example packed anew")
    return read(Read(data, limits))
