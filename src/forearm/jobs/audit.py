"""What `forearm audit` does: a matrix file into cells, the cells into blocks, the blocks to workers, their rows into the store.

Workers compute on one thread each and write nothing; the parent writes each block as it comes, whole or not at all. So a run may be killed at any
moment and any number of workers leaves the same bytes.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from forearm.errors import ForearmError, InputError, SpecError
from forearm.evaluate.cell import Cell, spans
from forearm.evaluate.chosen import Chosen, Sources
from forearm.evaluate.defense import preemptive_part
from forearm.evaluate.matrix import Matrix, cells, read_matrix
from forearm.evaluate.store import Store, release_key
from forearm.jobs.blocks import Failed, Hands, Here, Request, Stage, Task, do
from forearm.jobs.crew import Crew
from forearm.jobs.workers import Refused


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a stage has come."""

    stage: Stage
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of an audit. done: complete before it; made: completed by it; left: not complete; failed: what broke, by cell; notes: what was
    found damaged and made anew, and which models got no masking verdict; stopped: some work was left because it was asked to stop.
    """

    done: tuple[Cell, ...]
    made: tuple[Cell, ...]
    left: tuple[Cell, ...]
    failed: tuple[tuple[Cell, ForearmError], ...]
    notes: tuple[str, ...]
    stopped: bool

    @property
    def cells(self) -> tuple[Cell, ...]:
        """The complete cells."""
        return self.done + self.made


@dataclass(frozen=True, slots=True)
class AuditJob:
    """What to audit and how. jobs: worker processes, 0 for this process; batch: examples attacked together, None for the matrix's; only: a text that
    the cells to run have in their description; folder: where the data sets lie, None for their usual place.
    """

    matrix: Matrix
    store: Path
    jobs: int = 2
    batch: int | None = None
    only: str = ""
    folder: Path | None = None


def audit(matrix: str | Path | Matrix, *, store: str | Path, jobs: int = 0, only: str = "", folder: Path | None = None) -> pl.DataFrame:
    """Run what is missing of a matrix file, and give all its rows: one for each example of each cell.

    Columns: those of `evaluate.store.COLUMNS` (id, y, clean, protected, robust, distance, margin, changed) after `key` and the cell's fields (dataset,
    model, defense, attack, threat, informed, ...). The worst case over attacks is `evaluate.statistics.worst_case`. `jobs` 0 works in this process;
    with worker processes the calling script needs the usual `if __name__ == "__main__":`. `only`: a text in the descriptions of the cells wanted.

    SpecError for a matrix that cannot be understood, InputError and ArtifactError for data and weights that are not there, BudgetError for an attack
    that left its ball: raised at the end, when all other cells are stored.
    """
    read = matrix if isinstance(matrix, Matrix) else read_matrix(Path(matrix))
    job = AuditJob(read, Path(store), jobs, only=only, folder=folder)
    summary = run(job)
    if summary.failed:
        raise summary.failed[0][1]
    return rows_of(Store(job.store), summary.cells)


def rows_of(store: Store, found: Sequence[Cell]) -> pl.DataFrame:
    """The rows of some cells in one frame, each with its cell's key and fields."""
    frames = []
    for cell in found:
        fields = dataclasses.asdict(cell) | {"contents": " ".join(cell.contents)}
        frames.append(store.rows(cell).select(pl.lit(cell.key).alias("key"), *(pl.lit(v).alias(k) for k, v in fields.items()), pl.all()))
    return pl.concat(frames)


def run(
    job: AuditJob,
    report: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
    hands: Hands | None = None,
) -> Summary:
    """Make what is missing. `stop` is asked between tasks: when true, what is in flight is finished and the rest left. `hands`: who works, in place
    of this process and its `jobs`.

    A cell that fails costs that cell; a worker that dies is tried once more, alone. Memory: that of `jobs + 1` blocks and `jobs` models with their
    attacks' graphs of `batch` examples.
    """
    sources = Sources(job.folder)
    wanted = chosen_cells(job, sources)
    store = Store(job.store)
    with store.writing():
        if hands is not None or job.jobs == 0:
            return Run(job, wanted, sources, store, hands or Here(), report, stop).through()
        with Crew[Task](job.jobs) as crew:
            return Run(job, wanted, sources, store, crew, report, stop).through()


def chosen_cells(job: AuditJob, sources: Sources) -> tuple[Cell, ...]:
    """The cells of the job. SpecError where `only` leaves none."""
    everything = cells(job.matrix, sources)
    wanted = tuple(cell for cell in everything if job.only in str(cell))
    if not wanted:
        raise SpecError(f"only: {job.only!r} is in none of {len(everything)} cells; a part of one, for example {str(everything[0])!r}")
    return wanted


def outlook(job: AuditJob) -> list[tuple[Cell, int]]:
    """The cells of the job and how many of their blocks are there, without writing anything."""
    sources, store = Sources(job.folder), Store(job.store)
    return [(cell, cell.blocks - len(missing(store, cell, sources))) for cell in chosen_cells(job, sources)]


def pictures_of(cell: Cell, sources: Sources) -> Chosen:
    """The chosen pictures of a cell."""
    return sources.pictures(cell.dataset, cell.split, cell.examples, cell.pick)


def missing(store: Store, cell: Cell, sources: Sources) -> list[int]:
    """The blocks of a cell that are not there as they were written."""
    ids = pictures_of(cell, sources).ids
    return [number for number, span in enumerate(spans(cell.examples)) if not store.good(cell, number, ids[span])]


class Run:
    """The state of one audit while it runs."""

    def __init__(
        self,
        job: AuditJob,
        wanted: Sequence[Cell],
        sources: Sources,
        store: Store,
        hands: Hands,
        report: Callable[[Progress], None],
        stop: Callable[[], bool],
    ) -> None:
        self.job = job
        self.wanted = wanted
        self.sources = sources
        self.store = store
        self.hands = hands
        self.report = report
        self.stop = stop
        self.todo: dict[str, set[int]] = {}  # key of an incomplete cell -> its missing blocks
        self.failed: dict[str, tuple[Cell, ForearmError]] = {}
        self.notes: list[str] = []
        self.stopped = False

    def through(self) -> Summary:
        """All stages, one after another."""
        self.survey()
        done = [cell for cell in self.wanted if cell.key not in self.todo]
        before = set(self.todo)
        self.work("release", self.releases())
        self.work("attack", [Task("attack", cell, number) for cell in self.open() for number in sorted(self.todo[cell.key])])
        if self.job.matrix.masking:
            self.work("masking", self.verdicts())
        made = [cell for cell in self.wanted if cell.key in before and cell.key not in self.todo]
        left = [cell for cell in self.wanted if cell.key in self.todo]
        return Summary(tuple(done), tuple(made), tuple(left), tuple(self.failed.values()), tuple(self.notes), self.stopped)

    def survey(self) -> None:
        """Find what is missing; a damaged block is noted, and its cell no longer complete."""
        for cell in self.wanted:
            gaps = missing(self.store, cell, self.sources)
            for number in gaps:
                if self.store.there(cell, number):
                    self.notes.append(f"block {number} of cell {cell.key[:12]} ({cell}) was damaged and is made anew")
            if gaps:
                self.store.unfinish(cell)
                self.todo[cell.key] = set(gaps)
            elif not self.store.has(cell):
                self.store.finish(cell)

    def open(self) -> list[Cell]:
        """The incomplete cells that have not failed."""
        return [cell for cell in self.wanted if cell.key in self.todo and cell.key not in self.failed]

    def releases(self) -> list[Task]:
        """The missing blocks of releases that open cells, or masking verdicts, need: each once."""
        needed: dict[tuple[str, int], Task] = {}
        blocks = [(cell, number) for cell in self.open() for number in sorted(self.todo[cell.key])]
        verdicts = self.verdicts() if self.job.matrix.masking else []
        blocks += [(task.cell, number) for task in verdicts for number in numbers(task)]
        for cell, number in blocks:
            place = (release_key(cell), number)
            if preemptive_part(cell.defense) != "none" and place not in needed and self.store.release(cell, number) is None:
                needed[place] = Task("release", cell, number)
        return list(needed.values())

    def verdicts(self) -> list[Task]:
        """One task for each masking verdict that is missing: of each data set, model and defence, under its first threat."""
        first: dict[tuple[str, ...], Cell] = {}
        for cell in self.wanted:
            first.setdefault((cell.dataset, cell.model, cell.defense), cell)
        return [Task("masking", cell, 0) for cell in first.values() if cell.key not in self.failed and not self.store.judged(about(cell))]

    def work(self, stage: Stage, tasks: Iterable[Task]) -> None:
        """Send out tasks, as many as the hands take at a time, and keep what comes back."""
        waiting = deque(tasks)
        total, flying = len(waiting), 0
        while waiting or flying:
            while waiting and flying < self.hands.capacity and not self.stop():
                request = self.request(waiting.popleft())
                if request is not None:
                    self.hands.submit(request.task, do, request)
                    flying += 1
            if not flying:
                self.stopped = bool(waiting)
                break
            for task, answer in self.hands.answers():
                flying -= 1
                self.take(task, answer)
            self.report(Progress(stage, total - len(waiting) - flying, total))

    def request(self, task: Task) -> Request | None:
        """What a worker needs for a task; None where its cell has failed meanwhile."""
        if task.cell.key in self.failed:
            return None
        pieces = [list(spans(task.cell.examples))[number] for number in numbers(task)]
        block = pictures_of(task.cell, self.sources).part(slice(pieces[0].start, pieces[-1].stop))
        released = block.pixels
        if task.stage != "release" and preemptive_part(task.cell.defense) != "none":
            made = [self.store.release(task.cell, number) for number in numbers(task)]
            if any(part is None for part in made):  # it could not be made, and another cell's failure says why
                return None
            released = np.concatenate([part for part in made if part is not None])
        return Request(task, block, released, self.job.batch or self.job.matrix.batch)

    def take(self, task: Task, answer: Any) -> None:
        """Keep what a worker brought, or why it brought nothing."""
        cell, number = task.cell, task.number
        if task.stage == "masking" and isinstance(answer, Failed) and isinstance(answer.error, InputError | SpecError):
            self.notes.append(f"no masking verdict on {cell.model}, {cell.defense}: {answer.error}")
        elif isinstance(answer, Failed | Refused):
            died = f"{cell}: a worker died twice on block {number} (killed, perhaps for want of memory); a smaller --batch, or fewer --jobs"
            self.failed[cell.key] = (cell, answer.error if isinstance(answer, Failed) else ForearmError(died))
        elif task.stage == "release":
            self.store.put_release(cell, number, answer)
        elif task.stage == "masking":
            self.store.put_masking(about(cell), answer)
        else:
            self.store.put_block(cell, number, answer)
            self.todo[cell.key].discard(number)
            if not self.todo[cell.key]:
                self.store.finish(cell)
                del self.todo[cell.key]


def numbers(task: Task) -> range:
    """The blocks whose pictures a task needs: its own, for a masking verdict the first two."""
    return range(task.number, task.number + 1) if task.stage != "masking" else range(min(2, task.cell.blocks))


def about(cell: Cell) -> dict[str, Any]:
    """What a masking verdict is about: the fields of the cell that decide it, whatever it is attacked with."""
    names = (
        "dataset",
        "split",
        "model",
        "defense",
        "threat",
        "examples",
        "pick",
        "seed",
        "labels",
        "backbone",
        "labeller",
        "release_threat",
    )
    return {name: getattr(cell, name) for name in names} | {"contents": [one for one in cell.contents if not one.startswith("source=")]}
