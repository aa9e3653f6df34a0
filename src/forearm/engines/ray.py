"""Workers on a Ray cluster, or on a local one: the same errands as a crew's processes, by actors that keep their models.

    waiting --> at most two with each worker --> answers
       ^                                     |
       +---- a worker or its node died ------+

A worker is used once it has said what it runs. Whatever was with one that died goes out again, alone; after three deaths an errand is refused.
Workers write nothing, so an answer that comes twice or never costs time alone.
"""

from __future__ import annotations

import importlib.metadata
import os
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from forearm.errors import ForearmError, SpecError
from forearm.jobs.crew import DIED
from forearm.jobs.workers import Refused

if TYPE_CHECKING:
    from ray import ObjectRef

DEATHS = 3  # of workers that had an errand, until it is refused
AHEAD = 2  # errands with a worker at a time: one in work, one on its way
PATIENCE = 600.0  # seconds without any worker
LOOPBACK = "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"  # 0 on any system: a node is known by 127.0.0.1. Read when Ray is imported
NICENESS = "RAY_worker_niceness"  # 15 by default; in a cluster of our own 0, as in a crew. Read when the cluster starts
PACKAGES = ("forearm", "torch", "numpy", "pillow")  # whose versions must be the same everywhere

Ticket = TypeVar("Ticket")


class LostError(ForearmError):
    """The cluster has no workers left."""


@dataclass(slots=True, eq=False)
class Errand(Generic[Ticket]):
    """One call, what it is for, and how many workers died of it."""

    ticket: Ticket
    work: Callable[..., Any]
    request: object
    deaths: int = 0


@dataclass(slots=True, eq=False)
class Worker(Generic[Ticket]):
    """An actor; `pid` 0 until it has answered. `held`: the errands with it."""

    actor: Any
    pid: int
    held: list[Errand[Ticket]]


class Station:
    """What runs in an actor, on one thread. Its constructor does nothing that could fail."""

    def __init__(self, start: Callable[[], Any] | None) -> None:
        self.start = start
        self.kept: Any = None

    def ready(self) -> tuple[int, dict[str, str]]:
        """Load what is kept; this process, and what it runs."""
        import torch

        torch.set_num_threads(1)
        self.kept = self.start() if self.start else None
        return os.getpid(), versions()

    def do(self, work: Callable[..., Any], request: object) -> Any:
        """One errand."""
        return work(self.kept, request) if self.start else work(request)


def versions() -> dict[str, str]:
    """Of the packages that bytes depend on."""
    return {name: importlib.metadata.version(name) for name in PACKAGES}


class Fleet(Generic[Ticket]):
    """Actors that hand back answers as they are done, in place of a `Crew`.

    start: makes, once in each worker, what its errands are called with first (None: with the request alone). workers: how many, one CPU and one
    thread each (None: one a CPU of the cluster, or with `gpu` one a GPU). address: of a running cluster (None: one on this machine, for the length
    of the context, on the loopback interface). Nothing is reported to Ray's makers.

    SpecError where Ray is not installed, the cluster cannot be reached or has nothing to work with, or a worker runs other versions than this
    process; LostError where for ten minutes there is no worker at all.
    """

    def __init__(
        self, start: Callable[[], Any] | None = None, workers: int | None = None, address: str | None = None, gpu: bool = False
    ) -> None:  # fmt: skip
        self.start = start
        self.workers = workers
        self.address = address
        self.gpu = gpu
        self._own = False
        self._waiting: deque[Errand[Ticket]] = deque()
        self._sent: dict[ObjectRef[Any], tuple[Worker[Ticket], Errand[Ticket] | None]] = {}
        self._fleet: list[Worker[Ticket]] = []

    def __enter__(self) -> Fleet[Ticket]:
        if self.address is None:
            os.environ.setdefault(LOOPBACK, "0")
        ray = _ray()
        if not ray.is_initialized():
            _connect(self.address, self.workers)
            self._own = True
        try:
            kind = "GPU" if self.gpu else "CPU"
            self.workers = self.workers or int(ray.cluster_resources().get(kind, 0))
            if not self.workers:
                raise SpecError(
                    f"engine: the cluster at {self.address!r} has no {kind}; one that has, or --workers, for example --workers 4"
                )
            for _ in range(self.workers):
                self._hire()
        except BaseException:
            self._leave()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._leave()

    @property
    def capacity(self) -> int:
        """How many errands may be with the fleet at a time."""
        return AHEAD * (self.workers or 1)

    @property
    def pids(self) -> list[int]:
        """The workers' processes, of those that have answered."""
        return [worker.pid for worker in self._fleet if worker.pid]

    def submit(self, ticket: Ticket, work: Callable[..., Any], request: object) -> None:
        """Take one errand: `work(kept, request)`, a module-level function or a method of what is kept; without `start`, `work(request)`."""
        self._waiting.append(Errand(ticket, work, request))
        self._fill()

    def answers(self) -> list[tuple[Ticket, Any]]:
        """Wait until an errand is done and give all that are. What died with a worker goes out again, alone; `Refused` after three deaths."""
        ray = _ray()
        found: list[tuple[Ticket, Any]] = []
        while not found:
            done, rest = ray.wait(list(self._sent), num_returns=1, timeout=PATIENCE)
            done += ray.wait(rest, num_returns=len(rest), timeout=0)[0] if rest else []
            if not done and not self.pids:
                raise LostError(f"engine: no worker answered for {PATIENCE:g} s; a cluster with free CPUs, then the same command again")
            for ref in done:
                if ref in self._sent:  # not with a worker that was found dead a moment ago
                    found += self._take(ref)
            self._fill()
        return found

    def _take(self, ref: ObjectRef[Any]) -> list[tuple[Ticket, Any]]:
        ray = _ray()
        worker, errand = self._sent.pop(ref)
        try:
            answer = ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise error.cause if isinstance(error.cause, ForearmError) else error from None
        except ray.exceptions.RayError:
            return self._bury(worker, errand)
        if errand is None:
            worker.pid, theirs = answer
            if theirs != versions():
                raise SpecError(f"engine: a worker runs {_told(theirs)}, this process {_told(versions())}; the same versions everywhere")
            return []
        worker.held.remove(errand)
        return [(errand.ticket, answer)]

    def _bury(self, worker: Worker[Ticket], errand: Errand[Ticket] | None) -> list[tuple[Ticket, Any]]:
        """Replace a dead worker, or one whose answer was lost with its node, and put what it held first in the row."""
        self._sent = {ref: sent for ref, sent in self._sent.items() if sent[0] is not worker}
        self._fleet.remove(worker)
        _ray().kill(worker.actor)
        refused = []
        for held in reversed(worker.held):
            held.deaths += 1
            if held.deaths < DEATHS:
                self._waiting.appendleft(held)
            else:
                refused.append((held.ticket, Refused(DIED)))
        self._hire()
        return refused

    def _hire(self) -> None:
        """One more worker. Where the cluster has no room for it, it waits for a node, and the others go on."""
        ray = _ray()
        options = {"num_cpus": 1, "num_gpus": int(self.gpu), "scheduling_strategy": "SPREAD", "max_restarts": 0}
        worker = Worker[Ticket](ray.remote(Station).options(**options).remote(self.start), 0, [])
        self._fleet.append(worker)
        self._sent[worker.actor.ready.remote()] = (worker, None)

    def _fill(self) -> None:
        """Send what waits to whoever has the least; what workers died of goes alone."""
        while self._waiting:
            errand = self._waiting[0]
            most = 1 if errand.deaths else AHEAD
            free = [w for w in self._fleet if w.pid and len(w.held) < most and not any(held.deaths for held in w.held)]
            if not free:
                break
            worker = min(free, key=lambda w: len(w.held))
            worker.held.append(self._waiting.popleft())
            self._sent[worker.actor.do.remote(errand.work, errand.request)] = (worker, errand)

    def _leave(self) -> None:
        ray = _ray()
        for worker in self._fleet:
            ray.kill(worker.actor)
        self._fleet.clear()
        self._sent.clear()
        if self._own:
            ray.shutdown()
            self._own = False


def _ray() -> Any:
    """The library, which is not a dependency."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # read when it is imported
    try:
        import ray
        import ray.exceptions
    except ImportError:
        raise SpecError("engine: got 'ray', which is not installed; it comes with: pip install 'forearm[ray]'") from None
    return ray


def _connect(address: str | None, workers: int | None) -> None:
    """Join the cluster at `address`, or start one on this machine that has a CPU for each worker."""
    ray = _ray()
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    if address is None:
        os.environ.setdefault(NICENESS, "0")
        cpus = max(workers or 0, os.cpu_count() or 1)
        ray.init("local", num_cpus=cpus, include_dashboard=False, _node_ip_address="127.0.0.1", **quiet)
        return
    try:
        ray.init(address, **quiet)
    except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
        why = " ".join(str(error).split())[:200]
        raise SpecError(f"address: {address!r} cannot be reached ({why}); that of a running head, for example 10.0.0.1:6379") from None


def _told(found: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in found.items())
