"""Pictures armed elsewhere: blocks of tasks go out to hands, lines and encoded bytes come back, and this process writes them.

Whoever has the hands' side of it (`engines.ray`) loses a block where a worker dies, never a file: nothing has a name that this process did not give.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from forearm.errors import ArtifactError, ForearmError
from forearm.images.journal import Line
from forearm.jobs.arm import Armourer
from forearm.jobs.crew import Crew
from forearm.jobs.pipeline import Made, Outlet, Pipeline, Ticket, label_index, task_line
from forearm.jobs.plan import ProtectJob, Task, key_for
from forearm.jobs.workers import Refused

BLOCK = 16  # pictures that travel together: what is lost with a worker, and what a worker must hold of results

Block = tuple[Task, ...]


class Hands(Protocol):
    """Workers elsewhere, each of which keeps a `Bench`."""

    @property
    def capacity(self) -> int:
        """How many blocks may be with them at a time."""

    def submit(self, ticket: Block, work: Callable[..., Any], request: object) -> None:
        """Have `work(bench, request)` done."""

    def answers(self) -> list[tuple[Block, Any]]:
        """Wait until something is done, and give all that is; `Refused` where the workers died of it."""


@dataclass(slots=True)
class Basket:
    """An outlet that keeps everything."""

    results: list[Line | Made] = field(default_factory=list)

    def settle(self, line: Line) -> None:
        self.results.append(line)

    def write(self, made: Made) -> None:
        self.results.append(made)


class Bench:
    """What a worker keeps for the length of a job: the models, once they are loaded, and processes that decode and encode."""

    def __init__(self, job: ProtectJob, armourer: Armourer) -> None:
        self.job = job
        self.armourer = armourer
        self.crew = Crew[Ticket](job.jobs)

    def make(self, block: Block) -> list[Line | Made] | ForearmError:
        """The results of a block, in any order; what stops a whole job is given, not raised."""
        basket = Basket()
        try:
            Pipeline(self.job, self.armourer, self.crew, basket).through(block)
        except ForearmError as error:
            return error
        return basket.results


def through(
    tasks: Sequence[Task], hands: Hands, outlet: Outlet, job: ProtectJob, armourer: Armourer, stop: Callable[[], bool] = lambda: False
) -> None:  # fmt: skip
    """Have all `tasks` armed by `hands`; when `stop` says so, only the blocks in flight.

    A block of which workers died goes out again picture by picture, so that one picture at most is refused for it. ArtifactError where a worker
    armed with other models than this machine has by those names.
    """
    waiting = deque(tuple(tasks[first : first + BLOCK]) for first in range(0, len(tasks), BLOCK))
    flying = 0
    while waiting or flying:
        while waiting and flying < hands.capacity and not stop():
            block = waiting.popleft()
            hands.submit(block, Bench.make, tuple(replace(task, source=task.source.absolute()) for task in block))
            flying += 1
        if not flying:
            break
        for block, answer in hands.answers():
            flying -= 1
            if isinstance(answer, ForearmError):
                raise answer
            if not isinstance(answer, Refused):
                take(block, answer, outlet, job, armourer)
            elif len(block) > 1:
                waiting.extendleft((task,) for task in block)
            else:
                outlet.settle(task_line(block[0], "failed", answer.reason))


def take(block: Block, results: Sequence[Line | Made], outlet: Outlet, job: ProtectJob, armourer: Armourer) -> None:
    """Hand on what a worker made, under the tasks as this machine knows them."""
    known = {task.name: task for task in block}
    for result in results:
        if isinstance(result, Line):
            outlet.settle(result)
            continue
        task, height, width = known[result.line.file], result.line.height or 0, result.line.width or 0
        label = label_index(armourer, task, (height, width))
        if result.line.key != key_for(job, task.sha256, armourer, (height, width), label):
            raise ArtifactError(f"{task.name}: a worker armed it with other models than this machine has; the same files everywhere")
        outlet.write(replace(result, task=task))
