"""`forearm protect` and `verify` on object stores: block by block through a folder on this machine, by the job that arms folders.

    list both sides, less what is marked as done -> fetch a block -> `jobs.protect` -> journal part -> outputs -> marks

The job itself stays one of paths: decoding in processes of bounded memory, locks, synced appends and renames have no counterpart in stores. A block is
an ordinary job in a folder of its own, with the journal lines and outputs that the store has of its files; so bytes, journal, resuming and `--exists`
are the same by construction. The price is that transfers wait for the arming of a block and the other way round: two shards a machine hide it.

A journal part is there before the outputs of its block, so an output without a line is never this job's. After the outputs come their marks (size and
ETag or time, on both sides): what is marked, unchanged, is not fetched again by a rerun. There are no locks: the same shard run twice at once does
everything twice, to the same bytes.
"""

from __future__ import annotations

import csv
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath

from forearm.errors import InputError, SpecError
from forearm.images.folder import Found, choose, sha256_of
from forearm.images.journal import FOLDER, Line, OutputError, journal_name, journal_path, parse, part_of, read, same, spoken_of
from forearm.images.objects import Store
from forearm.jobs.arm import Armourer
from forearm.jobs.compare import Check
from forearm.jobs.labels import read_labels
from forearm.jobs.plan import ProtectJob, check_names, key_for
from forearm.jobs.protect import Progress, Report, protect
from forearm.jobs.remote import Hands
from forearm.jobs.summary import Summary
from forearm.jobs.verify import Pairing, pairing, verify

BLOCK = 256  # files on this machine's disk at a time, on either side


@dataclass(frozen=True, slots=True)
class Source:
    """An object to arm: its store, its name there, and its mark."""

    store: Store
    name: str
    mark: str

    @property
    def address(self) -> str:
        return self.store.address(self.name)


@dataclass(frozen=True, slots=True)
class Ledger:
    """What a store says of earlier runs. lines: by file, in no certain order over several runs; outputs: the armed lines by the sha256 of what was
    written; marks: (file, mark of the input, mark of the output, key) of what was done; part: the number of this run's next journal part.
    """

    lines: dict[str, list[Line]]
    outputs: dict[str, Line]
    marks: frozenset[tuple[str, str, str, str]]
    part: int


def protect_objects(
    job: ProtectJob, inputs: Sequence[str], out: str, armourer: Armourer, report: Report = lambda _: None, stop: Callable[[], bool] = lambda: False,
    hands: Hands | None = None, spool: Path | None = None, block: int = BLOCK,
) -> Summary:  # fmt: skip
    """Arm the pictures at addresses into an address; a rerun goes on where the last one stopped. Bytes and journal lines are those of `protect`.

    job: the options; its `inputs` and `out` are not looked at. `inputs` and `out` may also be local folders, which are then treated as stores. spool:
    the folder for blocks (None: one for temporary files), which `hands` on other machines must see under the same path. Disk: `block` inputs and
    outputs. SpecError for options and names that cannot work, InputError for inputs that cannot be listed, OutputError for what cannot be written.
    """
    started = time.perf_counter()
    if job.in_place:
        raise SpecError("in-place: got it with an address; a folder of its own for the output, for example -o s3://bucket/armed")
    job.check()
    target = Store.open(out)
    found, sources = listing(job, [Store.open(url) for url in inputs], target)
    labels = {} if job.labels is None else read_labels(job.labels, found)
    mine = [entry for entry in found if job.shard is None or job.shard.holds(entry.name)]
    there, ledger = target.find(), ledger_of(target, job)
    for source in {source.store.url: source.store for source in sources.values()}.values():
        ledger = replace(ledger, outputs=ledger_of(source).outputs | ledger.outputs)
    settled = [Line(entry.name, None, entry.status, entry.reason, str(entry.path)) for entry in mine if entry.status != "picture"]
    news = [line for line in settled if not any(same(line, earlier) for earlier in ledger.lines.get(line.file, ()))]
    if news and not job.dry_run:
        target.write(str(Path(FOLDER) / journal_name(job.shard, ledger.part)), text_of(news))
        ledger = replace(ledger, part=ledger.part + 1)
    pictures = [entry.name for entry in mine if entry.status == "picture"]
    lines = {name: finished(name, ledger, sources[name], there.get(name, ""), job, labels.get(name), armourer) for name in pictures}
    whole = Summary.of([line for line in lines.values() if line is not None], settled, [], started, job.dry_run)
    todo = [name for name in pictures if lines[name] is None]
    for first in range(0, len(todo), block):
        names, ended = todo[first : first + block], len(mine) - len(todo) + first
        if stop():
            whole = replace(whole, left=(*whole.left, *names))
            continue
        with tempfile.TemporaryDirectory(prefix="forearm-", dir=spool) as folder:
            desk = Block(job, Path(folder), target, {name: sources[name] for name in names}, ledger, labels, there)
            made = desk.through(armourer, partial(tell, report, ended, len(mine)), stop, hands)
        whole = together(whole, made)
        ledger = replace(ledger, part=ledger.part + 1)
    return replace(whole, seconds=time.perf_counter() - started)


def together(a: Summary, b: Summary) -> Summary:
    """Two parts of one job."""
    return replace(
        a, armed=a.armed + b.armed, done=a.done + b.done, skipped=a.skipped + b.skipped, failed=a.failed + b.failed, left=a.left + b.left
    )  # fmt: skip


def tell(report: Report, ended: int, total: int, event: Progress) -> None:
    """A block's progress as the whole job's."""
    if event.stage == "arm":
        report(replace(event, done=ended + event.done, total=total))


def listing(job: ProtectJob, stores: Sequence[Store], target: Store) -> tuple[list[Found], dict[str, Source]]:
    """What lies at the inputs, in order of name, and where. SpecError for what cannot work."""
    found: list[Found] = []
    sources: dict[str, Source] = {}
    for store in stores:
        if f"{target.root}/".startswith(f"{store.root}/") and type(target.fs) is type(store.fs):
            raise SpecError(
                f"output: {target.url!r} lies inside the input {store.url!r}; an address beside it, for example -o s3://bucket/armed"
            )
        objects = store.find()
        if not objects:
            raise SpecError(f"inputs: got {store.url!r}, where nothing lies; a folder or a picture, for example s3://bucket/photos")
        for below, mark in objects.items():
            name = below or store.root.rpartition("/")[2]
            if str(PurePosixPath(name)) != name or "\0" in name:
                found.append(Found(name, Path(store.address(below)), "failed", "a name that no file can have"))
                continue
            found.append(choose(Found(name, Path(store.address(below)), "picture"), job.include, job.exclude))
            sources.setdefault(name, Source(store, below, mark))
    found = list({(entry.name, entry.path): entry for entry in found}.values())
    check_names([entry for entry in found if entry.status == "picture"])
    return sorted(found, key=lambda entry: entry.name), sources


def ledger_of(store: Store, job: ProtectJob | None = None) -> Ledger:
    """The journals and marks of a store that may speak of the job's files (None: of any)."""
    shard = None if job is None else job.shard
    objects = {name for name in store.find(hidden=True) if name.startswith(f"{FOLDER}/")}
    parts = sorted((Path(name) for name in objects if spoken_of(Path(name).name, shard)), key=lambda path: (part_of(path), path.name))
    lines: dict[str, list[Line]] = {}
    outputs: dict[str, Line] = {}
    marks: set[tuple[str, str, str, str]] = set()
    for path in parts:
        for text in store.read(str(path)).split(b"\n"):
            if (line := parse(text, store.address(str(path)))) is not None:
                lines.setdefault(line.file, []).append(line)
                if line.status == "armed" and line.out_sha256 is not None:
                    outputs[line.out_sha256] = line
        if str(marks_of(path)) in objects:
            marks |= {(file, mine, theirs, key) for file, mine, theirs, key in json.loads(store.read(str(marks_of(path))))}
    own = journal_name(shard).removesuffix("jsonl")
    return Ledger(lines, outputs, frozenset(marks), max((part_of(path) for path in parts if path.name.startswith(own)), default=0) + 1)


def marks_of(part: Path) -> Path:
    """Where the marks of a journal part lie."""
    return part.with_name(f"marks-{part.stem}.json")


def finished(
    name: str, ledger: Ledger, source: Source, there: str, job: ProtectJob, given: str | None, armourer: Armourer
) -> Line | None:  # fmt: skip
    """The line of a file that an earlier run armed as this one would, where neither side has changed since; reads nothing."""
    for line in ledger.lines.get(name, ()):
        if line.key is None or line.sha256 is None or line.height is None or line.width is None or line.status != "armed":
            continue
        label = None if given is None else armourer.class_index(given, line.height, line.width)
        key = key_for(job, line.sha256, armourer, (line.height, line.width), label)
        if line.key == key and (name, source.mark, there, key) in ledger.marks:
            return line
    return None


@dataclass(frozen=True, slots=True)
class Block:
    """One block of files, in a folder of its own on this machine."""

    job: ProtectJob
    folder: Path
    target: Store
    sources: dict[str, Source]
    ledger: Ledger
    labels: dict[str, str]
    there: dict[str, str]

    def through(self, armourer: Armourer, report: Report, stop: Callable[[], bool], hands: Hands | None) -> Summary:
        """Fetch, arm, journal, write, mark."""
        inside, out = self.folder / "in", self.folder / "out"
        lost = self.fetch(inside, out)
        known = self.known(inside, out)
        write_lines(journal_path(out), known)
        labels = self.labels_file({line.file for line in lost}) if self.labels else None
        job = replace(self.job, inputs=(inside,), out=out, include=(), exclude=(), shard=None, labels=labels)
        summary = protect(job, armourer, report, stop, hands)
        if not self.job.dry_run:
            self.put([*read(journal_path(out))[len(known) :], *lost], out, summary.armed)
        armed, done, skipped, failed = (
            tuple(map(self.sourced, lines)) for lines in (summary.armed, summary.done, summary.skipped, summary.failed)
        )
        return replace(summary, armed=armed, done=done, skipped=skipped, failed=failed + tuple(lost))

    def fetch(self, inside: Path, out: Path) -> list[Line]:
        """The inputs and what lies at their outputs; a line for each input that cannot be had."""
        wrong: dict[str, str] = {}
        inside.mkdir()
        for store in {source.store.url: source.store for source in self.sources.values()}.values():
            names = {source.name: name for name, source in self.sources.items() if source.store is store}
            wrong |= {names[below]: why for below, why in store.fetch({below: inside / name for below, name in names.items()}).items()}
        unread = self.target.fetch({name: out / name for name in self.sources if name in self.there})
        for name, why in unread.items():
            raise OutputError(f"{self.target.address(name)}: cannot be read ({why}); an address that can be read and written")
        return [Line(name, None, "failed", f"cannot be read: {why}", self.sources[name].address) for name, why in wrong.items()]

    def known(self, inside: Path, out: Path) -> list[Line]:
        """What earlier runs said of these files, the line of what lies at the output last; and of outputs that now lie among the inputs."""
        sums = {sha256_of(path) for path in inside.rglob("*") if path.is_file()}
        others = [replace(self.ledger.outputs[sha256], file=sha256) for sha256 in sums & self.ledger.outputs.keys()]
        own: list[Line] = []
        for name in self.sources:
            here = sha256_of(out / name) if (out / name).is_file() else None
            own += sorted(self.ledger.lines.get(name, ()), key=lambda line, here=here: line.out_sha256 == here)
        return others + own

    def labels_file(self, lost: set[str]) -> Path:
        """The user's labels of these files."""
        path = self.folder / "labels.csv"
        rows = [(name, self.labels[name]) for name in self.sources if name in self.labels and name not in lost]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows([("file", "label"), *rows])
        return path

    def sourced(self, line: Line) -> Line:
        """A line that says where the input lies at the store."""
        return replace(line, source=self.sources[line.file].address)

    def put(self, lines: Iterable[Line], out: Path, armed: Sequence[Line]) -> None:
        """The journal part, then the outputs, then the marks."""
        part = Path(FOLDER) / journal_name(self.job.shard, self.ledger.part)
        text = text_of(map(self.sourced, lines))
        if text or armed:
            self.target.write(str(part), text)
        for line in armed:
            self.target.write(line.file, (out / line.file).read_bytes())
        marks = self.target.marks([line.file for line in armed])
        if armed:
            rows = [(line.file, self.sources[line.file].mark, marks[line.file], line.key) for line in armed]
            self.target.write(str(marks_of(part)), json.dumps(rows).encode())


def write_lines(path: Path, lines: Sequence[Line]) -> None:
    """A journal of these lines."""
    path.parent.mkdir(parents=True)
    path.write_bytes(text_of(lines))


def text_of(lines: Iterable[Line]) -> bytes:
    """Lines as a journal has them."""
    return b"".join(line.text().encode() + b"\n" for line in lines)


def verify_objects(
    url: str, original: str | None, look: Callable[[Sequence[Pairing]], Iterator[Check]] = verify, spool: Path | None = None, block: int = BLOCK
) -> Iterator[Check]:  # fmt: skip
    """What `look` finds of the armed files at an address: all that the journals there name, or one object and its original.

    InputError where nothing is known to be armed.
    """
    store = Store.open(url)
    pairs: list[tuple[Source, str, int | None]]
    if original is not None:
        pairs = [(Source(store, "", ""), original, None)]
    else:
        armed = {line.file: line for line in ledger_of(store).outputs.values()}
        pairs = [(Source(store, line.out, ""), line.source, line.label) for line in armed.values() if line.out and line.source]
    if not pairs:
        raise InputError(f"{url}: no journal of armed files; a folder that 'forearm protect' wrote, or --original for one file")
    for first in range(0, len(pairs), block):
        with tempfile.TemporaryDirectory(prefix="forearm-", dir=spool) as folder:
            yield from _looked(pairs[first : first + block], Path(folder), look)


def _looked(
    pairs: Sequence[tuple[Source, str, int | None]], folder: Path, look: Callable[[Sequence[Pairing]], Iterator[Check]]
) -> Iterator[Check]:  # fmt: skip
    """One block of pairs, fetched and looked at; files go by their addresses."""
    for number, (armed, original, label) in enumerate(pairs):
        name = original.rpartition("/")[2]
        here = (folder / str(number) / "armed" / name, folder / str(number) / "original" / name)
        wrong = armed.store.fetch({armed.name: here[0]}) | Store.open(original).fetch({"": here[1]})
        if wrong:
            yield Check(armed.address, original, f"cannot be read: {next(iter(wrong.values()))}")
            continue
        for check in look([pairing(*here, label)]):
            problem = None if check.problem is None else check.problem.replace(str(here[0]), armed.address).replace(str(here[1]), original)
            yield replace(check, file=armed.address, original=original, problem=problem)
