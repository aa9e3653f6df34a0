"""Plan a folder job before any work: what goes where, what is done already, what cannot be done and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from forearm.errors import SpecError
from forearm.images.folder import Found, find, sha256_of, within
from forearm.images.journal import History, Line, read_all
from forearm.images.limits import LIMITS, Limits
from forearm.images.shard import Shard
from forearm.jobs.arm import Armourer
from forearm.jobs.labels import read_labels
from forearm.jobs.lines import key_of
from forearm.jobs.workers import cause

EXISTS = ("skip", "overwrite", "fail")
ALREADY = "already armed; --again arms it once more"


@dataclass(frozen=True, slots=True)
class ProtectJob:
    """What `forearm protect` was asked for, beside the models."""

    inputs: tuple[Path, ...]
    out: Path | None = None
    in_place: bool = False
    backup: Path | None = None  # in place: where the originals and the journal go
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    labels: Path | None = None
    exists: str = "skip"  # skip, overwrite or fail: outputs that are there and are not this job's
    again: bool = False  # arm what is armed already
    tag: bool = True
    dry_run: bool = False
    jobs: int = 2  # worker processes
    batch: int = 64  # pictures armed at once, at most
    batch_pixels: int = 4_000_000  # pixels armed at once, unless one picture has more
    limits: Limits = LIMITS
    shard: Shard | None = None  # the part of the inputs that this run is about; None: all

    @property
    def root(self) -> Path:
        """The folder of the journal: the output folder, or the backup folder of a job in place."""
        root = self.backup if self.in_place else self.out
        if root is None:
            raise SpecError("output: got none; a folder, for example -o armed/, or --in-place --backup originals/")
        return root

    def check(self) -> None:
        """Raise SpecError for options that do not go together."""
        if self.in_place and self.out is not None:
            raise SpecError("output: got -o and --in-place; one of them, for example -o armed/")
        if not self.in_place and self.backup is not None:
            raise SpecError("backup: got --backup without --in-place; both or neither, for example --in-place --backup originals/")
        if self.in_place and self.backup is None:
            raise SpecError("backup: got --in-place without --backup; a folder for the originals, for example --backup originals/")
        if self.exists not in EXISTS:
            raise SpecError(f"exists: got {self.exists!r}; one of {', '.join(EXISTS)}, for example 'skip'")
        for name, value in (("jobs", self.jobs), ("batch", self.batch), ("batch_pixels", self.batch_pixels)):
            if value < 1:
                raise SpecError(f"{name}: got {value}; 1 or more, for example 2")


@dataclass(frozen=True, slots=True)
class Task:
    """One picture to arm."""

    name: str
    source: Path
    out: Path
    sha256: str
    label: str | None  # as the user wrote it
    backup: Path | None


@dataclass(frozen=True, slots=True)
class Plan:
    """Tasks in order of name; what an earlier run has done; and what is skipped or failed without work."""

    tasks: tuple[Task, ...]
    done: tuple[Line, ...]
    settled: tuple[Line, ...]


def survey(job: ProtectJob) -> tuple[list[Found], dict[str, str]]:
    """All entries of the inputs, or of the job's shard, each once, and the user's labels by name. SpecError for what cannot work.

    Reads no picture and writes nothing. What cannot work is told for all inputs, to every shard.
    """
    job.check()
    root = os.path.realpath(job.root)
    for path in job.inputs:
        if path.is_dir() and within(root, os.path.realpath(path)):
            raise SpecError(f"output: {str(job.root)!r} lies inside the input {str(path)!r}; a folder beside it, for example -o armed/")
    unique = {(entry.name, os.path.realpath(entry.path)): entry for entry in find(job.inputs, job.include, job.exclude)}
    found = list(unique.values())
    _check_collisions([entry for entry in found if entry.status == "picture"], job)
    labels = {} if job.labels is None else read_labels(job.labels, found)
    return [entry for entry in found if job.shard is None or job.shard.holds(entry.name)], labels


def check_names(pictures: Sequence[Found]) -> None:
    """SpecError if two pictures have one output, or one's output is a folder of another's."""
    taken: dict[str, Found] = {}
    for entry in pictures:
        other = taken.setdefault(entry.name, entry)
        if other is not entry:
            raise SpecError(
                f"output: {str(other.path)!r} and {str(entry.path)!r} both become {entry.name!r}; two runs with two output folders"
            )
    for entry in pictures:
        parts = entry.name.split("/")
        for above in ("/".join(parts[:end]) for end in range(1, len(parts))):
            if above in taken:
                raise SpecError(
                    f"output: {str(taken[above].path)!r} becomes a file where {entry.name!r} needs a folder; "
                    "two runs with two output folders"
                )


def _check_collisions(pictures: Sequence[Found], job: ProtectJob) -> None:
    """SpecError if outputs get into each other's way, or a picture's output is an input."""
    check_names(pictures)
    if not job.in_place:
        inputs = {os.path.realpath(entry.path) for entry in pictures}
        for entry in pictures:
            if os.path.realpath(job.root / entry.name) in inputs:
                raise SpecError(f"output: {str(entry.path)!r} would be written over; another folder, for example -o armed/, or --in-place")


def make_plan(
    job: ProtectJob,
    found: Sequence[Found],
    labels: dict[str, str],
    history: History,
    armourer: Armourer,
    report: Callable[[int], None] = lambda _: None,
) -> Plan:
    """Compare the inputs with the journal and the outputs.

    Cost: every input, and every output that is done, is read once for its sha256.
    """
    outputs = history.outputs | _outputs_of(job.inputs)
    tasks: list[Task] = []
    done: list[Line] = []
    settled: list[Line] = []
    for number, entry in enumerate(found):
        outcome = _consider(job, entry, labels.get(entry.name), history, outputs, armourer)
        if isinstance(outcome, Task):
            tasks.append(outcome)
        else:
            (done if outcome.status == "armed" else settled).append(outcome)
        report(number + 1)
    return Plan(tuple(tasks), tuple(done), tuple(settled))


def _outputs_of(inputs: Sequence[Path]) -> set[str]:
    """What earlier jobs wrote into the inputs, by their journals: a BMP has no tag and is known by these alone."""
    return set().union(*(History(read_all(path if path.is_dir() else path.parent)).outputs for path in inputs))


def _consider(job: ProtectJob, entry: Found, label: str | None, history: History, outputs: set[str], armourer: Armourer) -> Task | Line:
    """What one entry needs: a task, or a line that says why it needs none."""
    source = str(entry.path.absolute())
    if entry.status != "picture":
        return Line(entry.name, None, entry.status, entry.reason, source)
    if job.in_place and entry.link:
        return Line(entry.name, None, "skipped", "a link; its target is armed where it lies", source)
    try:
        size = entry.path.stat().st_size
        if size > job.limits.max_bytes:
            return Line(entry.name, None, "failed", f"{size} bytes; at most {job.limits.max_bytes}, see --max-bytes", source)
        sha256 = sha256_of(entry.path)
    except OSError as error:
        return Line(entry.name, None, "failed", f"cannot be read: {cause(error)}", source)
    out = entry.path if job.in_place else job.root / entry.name
    earlier = history.armed.get(entry.name)
    if earlier is not None and _finished(earlier, job, sha256, out, label, armourer):
        return earlier
    if sha256 in outputs and not job.again:
        return Line(entry.name, sha256, "skipped", ALREADY, source)
    if not job.in_place and os.path.lexists(out) and (job.exists != "overwrite" or out.is_dir()):
        status = "skipped" if job.exists == "skip" and not out.is_dir() else "failed"
        reason = (
            "a folder lies at the output"
            if out.is_dir()
            else "the output exists, from elsewhere or other settings; --exists overwrite replaces it"
        )
        return Line(entry.name, sha256, "failed" if status == "failed" else "skipped", reason, source)
    return Task(entry.name, entry.path, out, sha256, label, job.root / entry.name if job.in_place else None)


def _finished(earlier: Line, job: ProtectJob, sha256: str, out: Path, label: str | None, armourer: Armourer) -> bool:
    """Whether the journal's output is there, unchanged, and is what this job would make."""
    if earlier.height is None or earlier.width is None or earlier.sha256 is None:
        return False
    if sha256 != (earlier.out_sha256 if job.in_place else earlier.sha256):
        return False
    index = None if label is None else armourer.class_index(label, earlier.height, earlier.width)
    if earlier.key != key_for(job, earlier.sha256, armourer, (earlier.height, earlier.width), index):
        return False
    try:
        return job.in_place or sha256_of(out) == earlier.out_sha256
    except OSError:
        return False


def key_for(job: ProtectJob, sha256: str, armourer: Armourer, size: tuple[int, int], label: int | None) -> str:
    """The key of one input of (height, width) `size`. In place, arming once more is a result of its own."""
    settings = armourer.settings(*size) | ({"again": 1} if job.in_place and job.again else {})
    return key_of(sha256, settings, label, job.tag)
