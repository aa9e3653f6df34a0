"""The audit's units of work: one block of one cell at one stage, and where they are done."""

from __future__ import annotations

import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import torch

from forearm.errors import ForearmError
from forearm.evaluate.cell import Cell
from forearm.evaluate.chosen import Chosen
from forearm.evaluate.engine import Pixels, audit_block, masking_block, released_block
from forearm.jobs.protect import out_of_memory
from forearm.jobs.workers import cause

Stage = Literal["release", "attack", "masking"]


@dataclass(frozen=True, slots=True)
class Task:
    """One block of one cell at one stage (a masking verdict: the first blocks): the unit of work."""

    stage: Stage
    cell: Cell
    number: int


@dataclass(frozen=True, slots=True)
class Request:
    """A task with the pictures it needs, as a worker gets it."""

    task: Task
    block: Chosen
    released: Pixels
    batch: int


@dataclass(frozen=True, slots=True)
class Failed:
    """Why a worker could not do a task."""

    error: ForearmError


def do(request: Request) -> Any:
    """What a worker does with a task, on one thread: the released pictures, the rows or the masking verdict; or why not.

    Whatever an attack or a defence raises costs its cell; of what was not raised on purpose the traceback goes with the error as a note.
    """
    cell, threads = request.task.cell, torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        if request.task.stage == "release":
            return released_block(cell, request.block)
        if request.task.stage == "masking":
            return masking_block(cell, request.block, request.released)
        return audit_block(cell, request.block, request.released, request.batch)
    except ForearmError as error:
        return Failed(error)
    except Exception as error:
        if out_of_memory(error):
            return Failed(
                ForearmError(f"{cell}: not enough memory for {request.batch} examples together; a smaller --batch, or fewer --jobs")
            )
        failed = ForearmError(f"{cell}: {cause(error)}")
        failed.add_note(traceback.format_exc())
        return Failed(failed)
    finally:
        torch.set_num_threads(threads)


class Hands(Protocol):
    """Where work is done: a `Crew` of processes, `Here`, or elsewhere."""

    @property
    def capacity(self) -> int: ...

    def submit(self, ticket: Task, work: Callable[[Any], Any], request: object) -> None: ...

    def answers(self) -> list[tuple[Task, Any]]: ...


class Here:
    """A crew of nobody: the work is done in this process, one task at a time, when an answer is asked for."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Task, Callable[[Any], Any], object]] = deque()

    @property
    def capacity(self) -> int:
        """One task at a time."""
        return 1

    def submit(self, ticket: Task, work: Callable[[Any], Any], request: object) -> None:
        """Take one task."""
        self._waiting.append((ticket, work, request))

    def answers(self) -> list[tuple[Task, Any]]:
        """Do the oldest task."""
        ticket, work, request = self._waiting.popleft()
        return [(ticket, work(request))]
