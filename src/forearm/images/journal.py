"""The journal of a folder job: one JSON line for what became of an input, synced before the output gets its name.

A line is appended whole; a last line that was torn by a kill is cut off at the next opening. The last line of a file
counts, and for resuming the last one that says `armed`. Lines carry the version of the schema.

Each shard writes a journal of its own (`journal-2-of-4.jsonl`), so that no two machines append to one file; all journals of a
folder are read as one. Where files cannot be appended to, a journal is written in numbered parts (`journal-2-of-4.000001.jsonl`).
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from forearm.errors import ForearmError, InputError, SpecError
from forearm.images.shard import Shard

SCHEMA = 1
FOLDER = ".forearm"
NAMES = re.compile(r"journal(?:-(?P<number>[0-9]{1,9})-of-(?P<count>[0-9]{1,9}))?(?:\.(?P<part>[0-9]{1,9}))?\.jsonl")


class OutputError(ForearmError):
    """The output folder or its journal cannot be written."""


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one input. Everything after `reason` is None where it does not apply."""

    file: str  # name in the mirrored tree
    sha256: str | None  # of the input
    status: Literal["armed", "skipped", "failed"]
    reason: str = ""
    source: str | None = None  # where the input lay, an absolute path
    out: str | None = None  # name below the output folder; in place: below the input
    out_sha256: str | None = None
    key: str | None = None  # hash of the input and of everything the result depends on
    format: str | None = None
    width: int | None = None  # as seen, after the EXIF turn
    height: int | None = None
    label: int | None = None
    name: str | None = None  # the class's name
    confidence: float | None = None
    labelled_by: str | None = None
    uncertain: bool | None = None
    linf: int | None = None  # levels of 1/255, of the armed pixels
    psnr: float | None = None  # dB, of the written file; None if no pixel changed
    ssim: float | None = None  # of the written file
    view_share: float | None = None
    margin_before: float | None = None
    margin_after: float | None = None  # on the pixels of the written file
    linf_file: int | None = None  # levels of 1/255, of the written file
    eps: int | None = None  # the budget used, in levels of 1/255, where bounds on the quality chose it
    survive: str | None = None  # the publishing chains it was armed for
    seconds: float | None = None  # work on this file: decoding, its share of the batch, encoding

    def text(self) -> str:
        """The line as JSON in ASCII; numbers that are not finite become null."""
        values = {name: _finite(value) for name, value in dataclasses.asdict(self).items()}
        return json.dumps({"schema": SCHEMA} | values, allow_nan=False)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def same(a: Line, b: Line) -> bool:
    """Whether two lines tell the same, whenever and from wherever it was done."""
    return dataclasses.replace(a, seconds=None, source=None) == dataclasses.replace(b, seconds=None, source=None)


def parse(text: bytes, where: str) -> Line | None:
    """One line, or None if it is not whole. A schema of another version raises InputError."""
    try:
        values = json.loads(text)
        schema = values.pop("schema")
    except (ValueError, AttributeError, TypeError, KeyError):
        return None
    if schema != SCHEMA:
        raise InputError(
            f"{where}: a journal of schema {schema!r}; this version reads schema {SCHEMA}; another folder, for example -o armed2/"
        )
    try:
        line = Line(**values)
    except TypeError:
        return None
    return line if isinstance(line.file, str) and line.status in ("armed", "skipped", "failed") else None


def read(path: Path) -> list[Line]:
    """The whole lines of a journal, oldest first; none if there is no journal. Broken lines are passed over."""
    if not path.is_file():
        return []
    parsed = (parse(text, str(path)) for text in path.read_bytes().split(b"\n") if text.strip())
    return [line for line in parsed if line is not None]


def journal_name(shard: Shard | None = None, part: int = 0) -> str:
    """What the journal of a run, or a later part of it, is called."""
    whose = "journal" if shard is None else f"journal-{shard.number}-of-{shard.count}"
    return f"{whose}.jsonl" if part == 0 else f"{whose}.{part:06}.jsonl"


def journal_path(root: Path, shard: Shard | None = None) -> Path:
    """Where the journal of an output folder, or of a shard's run into it, lies."""
    return root / FOLDER / journal_name(shard)


def spoken_of(name: str, shard: Shard | None) -> bool:
    """Whether the journal called `name` may speak of files of `shard` (None: of any): its own, the unsharded one, and those of another count do."""
    match = NAMES.fullmatch(name)
    if match is None or shard is None or match["count"] is None:
        return match is not None
    return int(match["count"]) != shard.count or int(match["number"]) == shard.number


def journals(root: Path, shard: Shard | None = None) -> list[Path]:
    """The journals of an output folder that may speak of files of `shard`, the one that was written last at the end; parts in order."""
    runs: dict[str, list[Path]] = {}
    folder = root / FOLDER
    for path in folder.iterdir() if folder.is_dir() else ():
        if spoken_of(path.name, shard) and path.is_file():
            runs.setdefault(path.name.partition(".")[0], []).append(path)
    order = sorted(runs, key=lambda run: (max(path.stat().st_mtime_ns for path in runs[run]), run))
    return [path for run in order for path in sorted(runs[run], key=part_of)]


def part_of(path: Path) -> int:
    """Which part of its journal a file holds; 0 for the first."""
    match = NAMES.fullmatch(path.name)
    return int(match["part"] or 0) if match else 0


def read_all(root: Path, shard: Shard | None = None) -> list[Line]:
    """The lines of all journals of an output folder that may speak of files of `shard`, as `journals` orders them."""
    return [line for path in journals(root, shard) for line in read(path)]


class History:
    """What a journal says of each file: the last line, and the last line that says `armed`."""

    def __init__(self, lines: Iterable[Line] = ()) -> None:
        self.last: dict[str, Line] = {}
        self.armed: dict[str, Line] = {}
        self.outputs: set[str] = set()
        for line in lines:
            self.note(line)

    def note(self, line: Line) -> None:
        """Take one more line in."""
        self.last[line.file] = line
        if line.status == "armed" and line.out_sha256 is not None:
            self.armed[line.file] = line
            self.outputs.add(line.out_sha256)


class Journal:
    """The journal of an output folder or of a shard's run into it, opened to append.

    One run at a time, or the shards of one count side by side: any other second run is refused with SpecError.
    """

    def __init__(self, root: Path, shard: Shard | None = None) -> None:
        """Make the folder, lock and repair the journal. OutputError if it cannot be written."""
        self.path = journal_path(root, shard)
        self._handles: list[int] = []
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = self._open(self.path)
            whole = self._handle if shard is None else self._open(journal_path(root))
        except OSError as error:
            self._close()
            raise OutputError(
                f"{root}: cannot be written ({error.strerror}); a folder with write permission, for example -o armed/"
            ) from None
        try:
            self._lock(self._handle, fcntl.LOCK_EX)
            if shard is not None:
                self._lock(whole, fcntl.LOCK_SH)
                self._refuse_other_counts(root, shard)
            self._repair()
            self.history = History(read_all(root, shard))
        except BaseException:
            self._close()
            raise

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _open(self, path: Path) -> int:
        self._handles.append(os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644))
        return self._handles[-1]

    def _close(self) -> None:
        while self._handles:
            os.close(self._handles.pop())

    def record(self, line: Line) -> bool:
        """Append `line` and sync, unless the last line of its file tells the same. OutputError if the disk refuses."""
        last = self.history.last.get(line.file)
        if last is not None and same(last, line):
            return False
        self._append(line.text().encode() + b"\n")
        self.history.note(line)
        return True

    def _append(self, data: bytes) -> None:
        try:
            while data:
                data = data[os.write(self._handle, data) :]
            os.fsync(self._handle)
        except OSError as error:
            raise OutputError(
                f"{self.path}: the journal cannot be written ({error.strerror}); a disk with space, then the same command again"
            ) from None

    def _lock(self, handle: int, kind: int) -> None:
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except OSError:
            raise SpecError(
                f"{self.path}: another run is writing to this folder; one at a time, or another folder, for example -o armed2/"
            ) from None

    def _refuse_other_counts(self, root: Path, shard: Shard) -> None:
        """Shards of two counts overlap. Each holds its own journal before it looks, so that of two at least one is refused."""
        for path in journals(root):
            match = NAMES.fullmatch(path.name)
            if match and match["count"] and int(match["count"]) != shard.count:
                handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                try:
                    self._lock(handle, fcntl.LOCK_SH)
                finally:
                    os.close(handle)

    def _repair(self) -> None:
        """Cut off a last line that has no end."""
        size = os.fstat(self._handle).st_size
        if size == 0:
            return
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._handle, whole)
            os.fsync(self._handle)
