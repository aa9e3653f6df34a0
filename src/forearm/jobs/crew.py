"""Worker processes of which one may die: its file is tried once more, alone, and refused the second time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from types import TracebackType
from typing import Any, Generic, TypeVar

from forearm.jobs.workers import Refused

DIED = "the worker process died twice on this file (killed, perhaps for want of memory)"

Ticket = TypeVar("Ticket")
Work = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Errand(Generic[Ticket]):
    """One call, and what it is for."""

    ticket: Ticket
    work: Work
    request: object


class Crew(Generic[Ticket]):
    """`jobs` processes that start when first needed and hand back answers as they are done.

    They are spawned, since the parent runs threads; they do not see Ctrl-C, and end when the parent dies. Only
    `jobs + 1` errands are with them at a time, so that few fall under suspicion when one dies.
    """

    def __init__(self, jobs: int) -> None:
        self.jobs = jobs
        self._pool: ProcessPoolExecutor | None = None
        self._waiting: deque[Errand[Ticket]] = deque()
        self._sent: dict[Future[Any], Errand[Ticket]] = {}

    def __enter__(self) -> Crew[Ticket]:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    @property
    def capacity(self) -> int:
        """How many errands are with the processes at a time."""
        return self.jobs + 1

    @property
    def busy(self) -> bool:
        """Whether any errand is not yet answered."""
        return bool(self._sent or self._waiting)

    def submit(self, ticket: Ticket, work: Work, request: object) -> None:
        """Take one errand: `work(request)`, a module-level function."""
        self._waiting.append(Errand(ticket, work, request))
        self._fill()

    def answers(self) -> list[tuple[Ticket, Any]]:
        """Wait until an errand is done and give all that are. Those that died with a process are tried again, alone."""
        done, rest = wait(self._sent, return_when=FIRST_COMPLETED)
        if any(isinstance(future.exception(), BrokenProcessPool) for future in done):
            done |= wait(rest).done
            self._close()
        errands = [(self._sent.pop(future), future) for future in done]
        answers = [
            (errand.ticket, _alone(errand) if isinstance(future.exception(), BrokenProcessPool) else future.result())
            for errand, future in errands
        ]
        self._fill()
        return answers

    def _fill(self) -> None:
        while self._waiting and len(self._sent) < self.capacity:
            errand = self._waiting.popleft()
            self._pool = self._pool or _pool(self.jobs)
            self._sent[_send(self._pool, errand)] = errand

    def _close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)
            self._pool = None


def _alone(errand: Errand[Ticket]) -> Any:
    """The errand in a fresh process of its own."""
    with _pool(1) as pool:
        try:
            return _send(pool, errand).result()
        except BrokenProcessPool:
            return Refused(DIED)


def _pool(jobs: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn"), initializer=_follow_parent)


def _send(pool: ProcessPoolExecutor, errand: Errand[Ticket]) -> Future[Any]:
    """Submit; a pool that broke while nobody looked gives a future that says so."""
    try:
        with _without_interrupts():
            return pool.submit(errand.work, errand.request)
    except BrokenProcessPool as error:
        future: Future[Any] = Future()
        future.set_exception(error)
        return future


@contextmanager
def _without_interrupts() -> Iterator[None]:
    """Processes started inside never see SIGINT: a blocked signal stays blocked in a child."""
    resource_tracker.ensure_running()  # first, as it unblocks SIGINT when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _follow_parent() -> None:
    """End this process when its parent does, however that ends; the pool alone would leave it waiting for ever."""
    parent = multiprocessing.parent_process()

    def watch() -> None:
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
