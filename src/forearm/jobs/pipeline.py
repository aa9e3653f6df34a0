"""Pictures through decoding, batching by size, arming and encoding. What comes of each is handed on; nothing is written here."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from forearm.errors import BudgetError, InputError, SpecError
from forearm.images.journal import Line
from forearm.jobs.arm import Armed, Armourer
from forearm.jobs.crew import Crew
from forearm.jobs.lines import armed_line, tag_for
from forearm.jobs.plan import ALREADY, ProtectJob, Task, key_for
from forearm.jobs.window import Ready, Window
from forearm.jobs.workers import Load, Loaded, Refused, Save, Saved, cause, load, save

HELD = 8  # decoded pictures that are held, in units of `batch_pixels`
MEMORY = "not enough memory to arm this picture alone"


@dataclass(frozen=True, slots=True)
class Waiting:
    """An armed picture on its way into a file."""

    ready: Ready
    armed: Armed
    line: Line
    seconds: float


Ticket = Task | Waiting


@dataclass(frozen=True, slots=True)
class Made:
    """An armed and encoded picture that has yet to be written. `line`: what the journal is to say of it; `mode`: its permission bits."""

    task: Task
    line: Line
    data: bytes
    mode: int


class Outlet(Protocol):
    """Where the results go."""

    def settle(self, line: Line) -> None:
        """What became of an input of which nothing is to be written."""

    def write(self, made: Made) -> None:
        """A picture to be written."""


class Pipeline:
    """The state of a run of tasks on this machine."""

    def __init__(self, job: ProtectJob, armourer: Armourer, crew: Crew[Ticket], outlet: Outlet) -> None:
        self.job = job
        self.armourer = armourer
        self.crew = crew
        self.settle = outlet.settle
        self.write = outlet.write
        self.window = Window(job.batch, job.batch_pixels)
        self.loading = 0
        self.saving = 0
        self.saving_pixels = 0

    def through(self, tasks: Sequence[Task], stop: Callable[[], bool] = lambda: False) -> None:
        """Arm all `tasks`; when `stop` says so, only those in flight."""
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
        """Measure what was encoded, and hand it on."""
        ready = waiting.ready
        try:
            line = armed_line(
                waiting.line, waiting.armed, ready.picture.pixels, saved, self.armourer, waiting.seconds + saved.seconds
            )  # fmt: skip
        except (InputError, MemoryError, RuntimeError) as error:
            if not isinstance(error, InputError) and not out_of_memory(error):
                raise
            self.settle(replace(waiting.line, status="failed", reason=f"cannot be measured: {cause(error)}", out=None))
        else:
            self.write(Made(ready.task, line, saved.data, ready.mode))


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
