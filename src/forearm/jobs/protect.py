"""What `forearm protect` does with a folder: plan, have the pictures armed, journal, rename.

The pictures are armed by this process (`jobs.pipeline`) or by hands elsewhere (`jobs.remote`); this process alone writes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from forearm.errors import InputError
from forearm.images.folder import Found, sha256_of
from forearm.images.journal import History, Journal, Line, read_all
from forearm.images.write import back_up, commit, discard, stage, sweep, temporary
from forearm.jobs.arm import Armourer
from forearm.jobs.crew import Crew
from forearm.jobs.pipeline import MEMORY, Made, Pipeline, Ticket, Waiting, label_index, out_of_memory, task_line
from forearm.jobs.plan import ALREADY, Plan, ProtectJob, make_plan, survey
from forearm.jobs.remote import Hands, through
from forearm.jobs.summary import Summary
from forearm.jobs.workers import Load, Refused, cause, load

__all__ = ["MEMORY", "Desk", "Progress", "Report", "out_of_memory", "protect"]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage has come; `line`: what was just settled."""

    stage: Literal["plan", "arm"]
    done: int
    total: int
    line: Line | None = None


Report = Callable[[Progress], None]


def protect(
    job: ProtectJob,
    armourer: Armourer,
    report: Report = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    hands: Hands | None = None,
) -> Summary:
    """Arm every picture of the inputs; a rerun goes on where the last one stopped.

    The output holds the same bytes whatever `jobs` and `batch` are and however often the run was broken off. Each input
    leaves one line in the journal of `job.root` (see `forearm.images.journal`), written before its output gets its
    name. Outputs take the permission bits of their input, and times of their own. `stop` is asked between steps: when
    true, what is being armed and encoded is finished and the rest left. `hands`: who arms the pictures, block by block, in
    place of this process; each hand needs `Bench` as what it keeps (`jobs.remote`).

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
                history = History(read_all(job.root, job.shard))
                plan = look_ahead(make_plan(job, found, labels, history, armourer, planned), job, crew, armourer)
                return Summary.of(plan.done, plan.settled, [task.name for task in plan.tasks], started, dry_run=True)
            if not found:
                return Summary.of((), (), (), started)
            with Journal(job.root, job.shard) as journal:
                sweep(folders_of(job, found, journal.history), None if job.shard is None else temporaries(job, found))
                plan = look_ahead(make_plan(job, found, labels, journal.history, armourer, planned), job, crew, armourer)
                desk = Desk(journal, report, len(found))
                for line in (*plan.done, *plan.settled):
                    desk.settle(line)
                if hands is None:
                    Pipeline(job, armourer, crew, desk).through(plan.tasks, stop)
                else:
                    through(plan.tasks, hands, desk, job, armourer, stop)
    except _Stopped:
        return Summary.of((), (), [entry.name for entry in found if entry.status == "picture"], started)
    ended = {line.file for line in desk.settled}
    return Summary.of(plan.done, desk.settled[len(plan.done) :], [task.name for task in plan.tasks if task.name not in ended], started)


class _Stopped(Exception):
    """The job was asked to stop while it was planned."""


def folders_of(job: ProtectJob, found: Sequence[Found], history: History) -> set[Path]:
    """Every folder in which this job or an earlier one writes."""
    names = {entry.name for entry in found if entry.status == "picture"} | set(history.last)
    folders = {(job.root / name).parent for name in names}
    return folders | {entry.path.parent for entry in found if job.in_place and entry.status == "picture"}


def temporaries(job: ProtectJob, found: Sequence[Found]) -> set[Path]:
    """The temporary files of this shard's own outputs and backups: those of other shards may be in use."""
    pictures = [entry for entry in found if entry.status == "picture"]
    own = {temporary(job.root / entry.name) for entry in pictures}
    return own | {temporary(entry.path) for entry in pictures if job.in_place}


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


class Desk:
    """Where everything ends: what became of each input is journalled, what was made gets its name, and both are counted and told."""

    def __init__(self, journal: Journal, report: Report, total: int) -> None:
        self.journal = journal
        self.report = report
        self.total = total
        self.settled: list[Line] = []

    def settle(self, line: Line) -> None:
        """Journal what became of one input."""
        self.journal.record(line)
        self.tell(line)

    def tell(self, line: Line) -> None:
        """Count and report what the journal holds."""
        self.settled.append(line)
        self.report(Progress("arm", len(self.settled), self.total, line))

    def write(self, made: Made) -> None:
        """Back up, write, journal, rename: killed between any two of them, a rerun completes the job."""
        task = made.task
        part = None
        try:
            if task.backup is not None:
                back_up(task.source, task.backup, task.sha256)
                if sha256_of(task.source) != task.sha256:
                    raise InputError("changed while the job ran; run the same command again")
            part = stage(task.out, made.data, made.mode)
            self.journal.record(made.line)
            commit(part, task.out)
        except (OSError, InputError) as error:
            line, failed = made.line, task_line(task, "failed", f"cannot be written: {cause(error)}")
            self.settle(replace(failed, key=line.key, format=line.format, width=line.width, height=line.height))
        else:
            self.tell(made.line)
        finally:
            if part is not None:
                discard(part)
