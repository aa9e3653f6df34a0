"""What `forearm protect` does with a folder: plan, decode, batch by size, arm, encode, journal, rename."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from forearm.errors import BudgetError, InputError, SpecError
from forearm.images.folder import Found, sha256_of
from forearm.images.journal import History, Journal, Line, journal_path, read
from forearm.images.write import back_up, commit, discard, stage, sweep
from forearm.jobs.arm import Armed, Armourer
from forearm.jobs.crew import Crew
from forearm.jobs.lines import armed_line, tag_for
from forearm.jobs.plan import ALREADY, Plan, ProtectJob, Task, key_for, make_plan, survey
from forearm.jobs.summary import Summary
from forearm.jobs.window import Ready, Window
from forearm.jobs.workers import Load, Loaded, Refused, Save, Saved, cause, load, save

HELD = 8  # decoded pictures that are held, in units of `batch_pixels`
MEMORY = "not enough memory to arm this picture alone"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage has come; `line`: what was just settled."""

    stage: Literal["plan", "arm"]
    done: int
    total: int
    line: Line | None = None


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Waiting:
    """An armed picture on its way into a file."""

    ready: Ready
    armed: Armed
    line: Line
    seconds: float


Ticket = Task | Waiting


def protect(job: ProtectJob, armourer: Armourer, report: Report = lambda _: None, stop: Callable[[], bool] = lambda: False) -> Summary:
    """Arm every picture of the inputs; a rerun goes on where the last one stopped.

    The output holds the same bytes whatever `jobs` and `batch` are and however often the run was broken off. Each input
    leaves one line in the journal of `job.root` (see `forearm.images.journal`), written before its output gets its
    name. Outputs take the permission bits of their input, and times of their own. `stop` is asked between steps: when
    true, what is being armed and encoded is finished and the rest left.

    SpecError before any work for inputs, options and labels that cannot work; OutputError if the folder or the journal
    cannot be written. What is wrong with one picture costs that picture. Memory: at most about 8 `batch_pixels` of
    decoded pictures, and those the workers hold.
    """
    started = time.perf_counter()
    found, labels = survey(job)

    def planned(number: int) -> None:
        report(Progress("plan", number, len(found)))
        if stop():
            raise _Stopped

    try:
        with Crew[Ticket](job.jobs) as crew:
            if job.dry_run:
                history = History(read(journal_path(job.root)))
                plan = look_ahead(make_plan(job, found, labels, history, armourer, planned), job, crew, armourer)
                return Summary.of(plan.done, plan.settled, [task.name for task in plan.tasks], started, dry_run=True)
            if not found:
                return Summary.of((), (), (), started)
            with Journal(job.root) as journal:
                sweep(folders_of(job, found, journal.history))
                plan = look_ahead(make_plan(job, found, labels, journal.history, armourer, planned), job, crew, armourer)
                run = Run(job, armourer, crew, journal, report, len(found))
                for line in (*plan.done, *plan.settled):
                    run.settle(line)
                left = run.through(plan.tasks, stop)
    except _Stopped:
        return Summary.of((), (), [entry.name for entry in found if entry.status == "picture"], started)
    return Summary.of(plan.done, run.settled[len(plan.done) :], left, started)


class _Stopped(Exception):
    """The job was asked to stop while it was planned."""


def folders_of(job: ProtectJob, found: Sequence[Found], history: History) -> set[Path]:
    """Every folder in which this job or an earlier one writes."""
    names = {entry.name for entry in found if entry.status == "picture"} | set(history.last)
    folders = {(job.root / name).parent for name in names}
    return folders | {entry.path.parent for entry in found if job.in_place and entry.status == "picture"}


def look_ahead(plan: Plan, job: ProtectJob, crew: Crew[Ticket], armourer: Armourer) -> Plan:
    """The plan after a look into the files that a label file names; in a dry run into all.

    So an unknown label stops the job before it starts (SpecError), and a dry run knows what cannot be armed.
    """
    asked = [task for task in plan.tasks if job.dry_run or task.label is not None]
    lines: dict[str, Line] = {}
    for asked_for in asked:
        crew.submit(asked_for, load, Load(asked_for.source, asked_for.sha256, job.limits, bare=True))
    while crew.busy:
        for ticket, answer in crew.answers():
            task = ticket.ready.task if isinstance(ticket, Waiting) else ticket
            if isinstance(answer, Refused):
                lines[task.name] = task_line(task, "failed", answer.reason)
                continue
            label_index(armourer, task, answer.shape)
            if answer.tag is not None and not job.again:
                lines[task.name] = task_line(task, "skipped", ALREADY)
    tasks = tuple(task for task in plan.tasks if task.name not in lines)
    return Plan(tasks, plan.done, plan.settled + tuple(lines[task.name] for task in asked if task.name in lines))


class Run:
    """The state of one job while it runs."""

    def __init__(
        self,
        job: ProtectJob,
        armourer: Armourer,
        crew: Crew[Ticket],
        journal: Journal,
        report: Report,
        total: int,
    ) -> None:
        self.job = job
        self.armourer = armourer
        self.crew = crew
        self.journal = journal
        self.report = report
        self.total = total
        self.settled: list[Line] = []
        self.window = Window(job.batch, job.batch_pixels)
        self.loading = 0
        self.saving = 0
        self.saving_pixels = 0

    def settle(self, line: Line) -> None:
        """Journal what became of one input."""
        self.journal.record(line)
        self.tell(line)

    def tell(self, line: Line) -> None:
        """Count and report what the journal holds."""
        self.settled.append(line)
        self.report(Progress("arm", len(self.settled), self.total, line))

    def through(self, tasks: tuple[Task, ...], stop: Callable[[], bool]) -> list[str]:
        """Arm all `tasks`; the names of those left when `stop` said so."""
        waiting = list(reversed(tasks))
        while True:
            while waiting and not stop() and self.room:
                task = waiting.pop()
                self.crew.submit(task, load, Load(task.source, task.sha256, self.job.limits))
                self.loading += 1
            batch = [] if stop() or self.saving > self.job.batch else self.window.take(everything=not self.loading)
            if batch:
                self.arm(batch)
            elif self.saving or (self.loading and not stop()):
                for ticket, answer in self.crew.answers():
                    self.take(ticket, answer)
            elif stop() or not (waiting or self.window.pixels):
                break
        settled = {line.file for line in self.settled}
        return [task.name for task in tasks if task.name not in settled]

    @property
    def room(self) -> bool:
        """Whether one more picture may be decoded."""
        return self.loading <= self.job.jobs and self.window.pixels + self.saving_pixels < HELD * self.job.batch_pixels

    def take(self, ticket: Ticket, answer: Loaded | Saved | Refused) -> None:
        """Sort in what a worker brought."""
        if isinstance(ticket, Task):
            self.loading -= 1
            self.take_loaded(ticket, answer)
        else:
            self.saving -= 1
            self.saving_pixels -= ticket.ready.pixels
            if isinstance(answer, Saved):
                self.finish(ticket, answer)
            else:
                self.settle(replace(ticket.line, status="failed", reason=reason_of(answer)))

    def take_loaded(self, task: Task, answer: Loaded | Saved | Refused) -> None:
        """A decoded picture waits for others of its size; one that was armed before, or cannot be read, is settled."""
        if not isinstance(answer, Loaded) or answer.picture is None:
            self.settle(task_line(task, "failed", reason_of(answer)))
        elif answer.tag is not None and not self.job.again:
            self.settle(task_line(task, "skipped", ALREADY))
        else:
            label = label_index(self.armourer, task, answer.shape)
            self.window.add(Ready(task, answer.picture, label, answer.mode, answer.seconds))

    def arm(self, batch: list[Ready]) -> None:
        """Arm pictures of one shape and send them to be encoded."""
        started = time.perf_counter()
        armed = self.armed(batch)
        share = (time.perf_counter() - started) / len(batch)
        for ready, result in zip(batch, armed, strict=True):
            if isinstance(result, Refused):
                self.settle(task_line(ready.task, "failed", result.reason))
                continue
            height, width = ready.picture.pixels.shape[:2]
            settings = self.armourer.settings(height, width)
            line = replace(
                task_line(ready.task, "armed", "; ".join(ready.picture.warnings)),
                out=ready.task.name,
                key=key_for(self.job, ready.task.sha256, self.armourer, (height, width), ready.label),
                format=ready.picture.format,
                width=width,
                height=height,
            )
            waiting = Waiting(ready, result, line, ready.seconds + share)
            tag = tag_for(settings) if self.job.tag else None
            self.crew.submit(waiting, save, Save(replace(ready.picture, pixels=result.pixels), tag, self.job.limits))
            self.saving += 1
            self.saving_pixels += ready.pixels

    def armed(self, batch: list[Ready]) -> list[Armed | Refused]:
        """Arm a batch; if memory runs out or a picture is refused, its halves, down to one picture that is refused."""
        try:
            return list(self.armourer.arm([ready.picture.pixels for ready in batch], [ready.label for ready in batch]))
        except (InputError, BudgetError, MemoryError, RuntimeError) as error:
            if not isinstance(error, InputError | BudgetError):
                if not out_of_memory(error):
                    raise
                self.window.batch = max(1, len(batch) // 2)
            reason = cause(error) if isinstance(error, InputError | BudgetError) else MEMORY
        if len(batch) == 1:
            return [Refused(reason)]
        half = len(batch) // 2
        return self.armed(batch[:half]) + self.armed(batch[half:])

    def finish(self, waiting: Waiting, saved: Saved) -> None:
        """Measure, back up, write, journal, rename: killed between any two of them, a rerun completes the job."""
        task = waiting.ready.task
        part = None
        try:
            line = armed_line(
                waiting.line,
                waiting.armed,
                waiting.ready.picture.pixels,
                saved,
                self.armourer,
                waiting.seconds + saved.seconds,
            )
            if task.backup is not None:
                back_up(task.source, task.backup, task.sha256)
                if sha256_of(task.source) != task.sha256:
                    raise InputError("changed while the job ran; run the same command again")
            part = stage(task.out, saved.data, waiting.ready.mode)
            self.journal.record(line)
            commit(part, task.out)
        except (OSError, InputError, MemoryError, RuntimeError) as error:
            if isinstance(error, MemoryError | RuntimeError) and not out_of_memory(error):
                raise
            self.settle(replace(waiting.line, status="failed", reason=f"cannot be written: {cause(error)}", out=None))
        else:
            self.tell(line)
        finally:
            if part is not None:
                discard(part)


def task_line(task: Task, status: Literal["armed", "skipped", "failed"], reason: str) -> Line:
    """The start of a task's journal line."""
    return Line(task.name, task.sha256, status, reason, str(task.source.absolute()))


def label_index(armourer: Armourer, task: Task, shape: tuple[int, ...]) -> int | None:
    """The user's label as an index, for a picture of this shape; SpecError names the file if there is no such class."""
    if task.label is None:
        return None
    try:
        return armourer.class_index(task.label, shape[0], shape[1])
    except SpecError as error:
        raise SpecError(f"{task.name}: {error}") from None


def reason_of(answer: Loaded | Saved | Refused) -> str:
    """Why a worker refused."""
    return answer.reason if isinstance(answer, Refused) else "the worker gave no picture"


def out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or torch says that memory ran out, on any device."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in ("out of memory", "not enough memory", "can't allocate memory"))
