"""Published files over the network: resumed where they broke off, checked, unpacked safely, and put in place whole."""

from __future__ import annotations

import hashlib
import http.client
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import forearm
from forearm.data.catalogue import Entry, File
from forearm.data.unpack import FetchError, unpack

RECORD = "fetched.json"
CHUNK = 2**20
TRIES = 3  # in a row that come no further than before
TIMEOUT = 30.0  # seconds without an answer

Progress = Callable[[str, int, int], None]  # file, bytes there, bytes in all
Record = dict[str, dict[str, Any]]


def fetch(
    name: str, entry: Entry, folder: Path, *, report: Progress = lambda _name, _there, _all: None, pause: float = 1.0
) -> tuple[str, ...]:
    """Put the published files of a data set into `folder`; the names of those that were not there before.

    A file comes into `FILE.part`, which a later call continues (Range); it counts only with the published size and md5 (and sha256
    where that is known). Archives are unpacked beside it and renamed into place; `fetched.json` then records the sha256 of what lies
    there, for `changed`. A published file that the user has put into the folder by hand is taken as it is, so no network is needed.
    `pause`: seconds before another try. FetchError where no address gives the file, where it is another one, or where something that
    was not fetched is in the way; nothing in place has been touched then.
    """
    if not entry.files:
        raise FetchError(f"fetch {name}: cannot be fetched; put it into {folder} by hand, from {entry.source}")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        record = read_record(folder)
        new = [file for file in entry.files if not _whole(folder, record.get(file.name), file)]
        for file in new:
            record[file.name] = _get(name, file, folder, record.get(file.name, {}), report, pause)
            _write_record(folder, name, record)
    except OSError as error:
        raise FetchError(f"fetch {name}: {error}; a folder that can be written, for example --to data") from None
    return tuple(file.name for file in new)


def changed(folder: Path) -> list[str]:
    """What of `fetched.json` is no longer there as it was fetched; reads and hashes all of it."""
    return [path for entry in read_record(folder).values() for path, was in entry["paths"].items() if digest(folder / path) != was]


def read_record(folder: Path) -> Record:
    """What was fetched into a folder: file -> url, size, md5, sha256 and paths (path -> files, bytes, sha256). FetchError where unreadable."""
    file = folder / RECORD
    if not file.is_file():
        return {}
    try:
        record: Record = json.loads(file.read_text(encoding="utf-8"))["files"]
        paths = [path for entry in record.values() for path in entry["paths"]]
        if not all(Path(path).name == path for path in paths) or not all("md5" in entry for entry in record.values()):
            raise ValueError("a path outside of the folder")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise FetchError(f"{file}: not a record of what was fetched ({error}); remove it and fetch again") from None
    return record


def digest(path: Path) -> dict[str, Any] | None:
    """Number of files, bytes and sha256 of a file, or of a folder (over the sorted lines "relative path NUL sha256"); None if missing."""
    if path.is_file():
        return {"files": 1, "bytes": path.stat().st_size, "sha256": _sums(path)[1]}
    if not path.is_dir():
        return None
    files = sorted((p.relative_to(path).as_posix(), p) for p in path.rglob("*") if p.is_file())
    total = hashlib.sha256()
    for name, file in files:
        total.update(f"{name}\0{_sums(file)[1]}\n".encode())
    return {"files": len(files), "bytes": sum(file.stat().st_size for _, file in files), "sha256": total.hexdigest()}


def _sums(path: Path) -> tuple[str, str]:
    """md5 and sha256 of a file. The md5 is what publishers give; it tells damage, not malice."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(CHUNK):
            md5.update(block)
            sha256.update(block)
    return md5.hexdigest(), sha256.hexdigest()


def _whole(folder: Path, known: dict[str, Any] | None, file: File) -> bool:
    return known is not None and known["md5"] == file.md5 and all(digest(folder / path) == was for path, was in known["paths"].items())


def _write_record(folder: Path, name: str, record: Record) -> None:
    half = folder / f"{RECORD}.part"
    half.write_text(json.dumps({"name": name, "files": record}, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    half.replace(folder / RECORD)


def _get(name: str, file: File, folder: Path, known: dict[str, Any], report: Progress, pause: float) -> dict[str, Any]:
    """One published file in place; its line of the record."""
    place, part = folder / file.name, folder / f"{file.name}.part"
    mine = not place.is_file() or file.name in known.get("paths", {})
    url = "put there by hand" if not mine else _checked(name, file, part, report, pause)
    source = part if mine else place
    md5, sha256 = _sums(source)
    if not _right(file, source, md5, sha256):
        raise FetchError(f"fetch {name}: {place} is another file than was published (md5 {file.md5}); move it away and fetch again")
    if file.unpacked:
        tops = unpack(source, folder, file, frozenset(known.get("paths", {})))
        if mine:
            part.unlink()
    else:
        tops = [file.name]
        source.replace(place)
    paths = {top: digest(folder / top) for top in tops}
    return {"url": url, "size": file.size, "md5": md5, "sha256": sha256, "paths": paths}


def _right(file: File, source: Path, md5: str, sha256: str) -> bool:
    return source.stat().st_size == file.size and md5 == file.md5 and (not file.sha256 or sha256 == file.sha256)


def _checked(name: str, file: File, part: Path, report: Progress, pause: float) -> str:
    """Download into `part` until it is the published file; the address. A part of an earlier call may be of something else: once more."""
    for again in (part.exists(), False):
        url = _download(name, file, part, report, pause)
        md5, sha256 = _sums(part)
        if _right(file, part, md5, sha256):
            break
        part.unlink()
        if not again:
            raise FetchError(f"fetch {name}: {url} gave another file (md5 {md5}); {file.md5}, as published")
    return url


def _download(name: str, file: File, part: Path, report: Progress, pause: float) -> str:
    """Bytes into `part` until there are as many as were published; the address that gave the last."""
    failures = []
    for url in file.urls:
        idle, far, why = 0, _size(part), "no answer"
        while idle < TRIES:
            there = _size(part)
            if there == file.size:
                return url
            try:
                _continue(url, file, part, there, report)
                why = "the connection ended early"
            except FetchError as error:
                why = str(error)
                break
            except urllib.error.HTTPError as error:
                why = f"HTTP {error.code} {error.reason}"
                if error.code in (401, 403, 404, 410):
                    break
            except (OSError, http.client.HTTPException) as error:
                why = " ".join(str(getattr(error, "reason", None) or error or type(error).__name__).split())
            idle, far = (0 if _size(part) > far else idle + 1), max(far, _size(part))
            if 0 < idle < TRIES:
                time.sleep(pause)
        failures.append(f"{url} ({why})")
    raise FetchError(
        f"fetch {name}: could not get {' or '.join(failures)}; a network, or the file put into {part.parent} by hand and the same command"
    )


def _size(part: Path) -> int:
    return part.stat().st_size if part.exists() else 0


def _continue(url: str, file: File, part: Path, there: int, report: Progress) -> None:
    """Append what is missing, or begin anew where the server does not continue. FetchError where it offers a file of another size."""
    headers = {"User-Agent": f"forearm/{forearm.__version__}"}
    if there > file.size:
        part.unlink()
        there = 0
    if there:
        headers["Range"] = f"bytes={there}-"
    try:
        answer = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:
            part.unlink(missing_ok=True)
        raise
    with answer:
        goes_on = answer.status == 206 and re.match(rf"bytes {there}-", answer.headers.get("Content-Range", "")) is not None
        if there and not goes_on:
            there = 0
        if answer.status != 200 and not goes_on:
            raise FetchError(f"HTTP {answer.status} for {headers.get('Range', 'the whole')}")
        declared = answer.headers.get("Content-Length", "")
        if declared.isdecimal() and there + int(declared) != file.size:
            raise FetchError(f"{there + int(declared)} bytes; {file.size}, as published")
        with part.open("ab" if there else "wb") as out:
            while block := answer.read(min(CHUNK, file.size - there + 1)):
                there += len(block)
                if there > file.size:
                    raise FetchError(f"more than {file.size} bytes, as published")
                out.write(block)
                report(file.name, there, file.size)
