"""What the endpoints of one service share: the worker with its models, the decoders, the gate, the counters."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from forearm.images.picture import Picture
from forearm.images.provenance import Tag
from forearm.jobs.arm import Armourer
from forearm.jobs.compare import Check
from forearm.service.decoders import Decoders
from forearm.service.metrics import Metrics
from forearm.service.problems import Problem
from forearm.service.settings import Settings
from forearm.service.worker import Worker

LONGEST_WAIT = 300  # seconds that a client is told to wait, at most
RECENT = 0.2  # weight of the newest picture in the mean time of one


class Verifier(Protocol):
    """Measures an armed picture against its original, in the worker's thread."""

    def __call__(self, before: Picture, after: Picture, tag: Tag | None, label: str | None) -> Check:
        """`tag`: what the armed file says of itself. `label`: a class by name or number; None asks the labeller."""


class Gate:
    """Lets in `most` requests at a time and turns away the rest, saying when to come again."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.inside = 0
        self.mean = 1.0  # seconds a picture, of late

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Be inside for the block; a Problem 429 if the house is full."""
        if self.inside >= self.most:
            wait = min(LONGEST_WAIT, max(1, math.ceil(self.mean * self.most / 2)))
            raise Problem(
                429,
                f"queue: {self.inside} requests are being served; up to {self.most}, again in {wait} seconds",
                {"Retry-After": str(wait)},
            )
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    def took(self, seconds: float) -> None:
        """A picture took the models so long."""
        self.mean += RECENT * (seconds - self.mean)


@dataclass(frozen=True, slots=True)
class Engine:
    """One running service. `room`: a place for each decoded picture that may be held."""

    settings: Settings
    armourer: Armourer
    verifier: Verifier
    worker: Worker
    decoders: Decoders
    gate: Gate
    room: asyncio.Semaphore
    metrics: Metrics

    @classmethod
    def start(cls, settings: Settings, armourer: Armourer, verifier: Verifier, metrics: Metrics) -> Engine:
        """Start thread and processes. `close` ends them."""
        gate = Gate(settings.queue)

        def watch(size: int, seconds: float) -> None:
            metrics.batches.observe(size)
            gate.took(seconds / size / hands)

        hands = armourer.hands
        worker = Worker(armourer, settings.batch, settings.batch_pixels, watch, hands, one_thread if hands > 1 else lambda: None)
        decoders = Decoders(settings.decoders, settings.decoder_memory, settings.decode_seconds)
        metrics.gauge("forearm_requests_inside", "Requests that hold a place in the queue.", lambda: gate.inside)
        metrics.gauge("forearm_models_waiting", "Pictures and calls that wait for the models.", lambda: worker.waiting)
        metrics.gauge("forearm_decoders_ended", "Decoder processes that died or were ended.", lambda: decoders.ended)
        return cls(settings, armourer, verifier, worker, decoders, gate, asyncio.Semaphore(max(settings.batch, hands) + 3), metrics)

    async def warm(self) -> None:
        """Load the models for small pictures and for photos, and look through the backbones once. Raises what that raises."""
        for side in (32, 256):
            await asyncio.wrap_future(self.worker.call(warm_up(self.armourer, side)))

    @property
    def ready(self) -> bool:
        """Whether pictures can be armed now."""
        return self.worker.alive

    def close(self) -> None:
        """End thread and processes; what waits is cancelled."""
        self.worker.close()
        self.decoders.close()


def one_thread() -> None:
    """Keep torch to the thread that calls this: the others have work of their own."""
    import torch

    torch.set_num_threads(1)


def warm_up(armourer: Armourer, side: int) -> Callable[[], None]:
    """A call that makes `armourer` load and use its models for pictures of this side."""

    def work() -> None:
        import numpy as np

        armourer.settings(side, side)
        armourer.margins([np.zeros((side, side, 3), np.uint8)], [0])

    return work
