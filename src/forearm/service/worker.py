"""The threads that use the models, one a core. They take what waits: pictures of one shape together, urgent calls first."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from forearm.errors import ForearmError, InputError
from forearm.images.provenance import Tag
from forearm.jobs.arm import Armed, Armourer, Pixels
from forearm.jobs.protect import out_of_memory

Result = TypeVar("Result")


class TooLarge(InputError):
    """A picture for which, alone, the memory does not suffice."""


@dataclass(frozen=True, slots=True)
class Done:
    """An armed picture and the settings it was armed with."""

    armed: Armed
    settings: Tag


@dataclass(frozen=True, slots=True, eq=False)
class Arming:
    """A picture that waits to be armed. `label`: a class by name or number, or None."""

    pixels: Pixels
    label: str | None
    future: Future[Done]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """Anything else that needs the models."""

    function: Callable[[], Any]
    future: Future[Any]


class Worker:
    """Threads that arm what they are handed, in order of arrival; all share one armourer.

    Micro-batching is dynamic: when a thread is free it takes the picture that waits longest, and with it those of the
    same shape that wait already, up to `batch` pictures and `batch_pixels` pixels; it never waits for more to come. What
    a picture becomes does not depend on its neighbours: that is the armourer's law.
    """

    def __init__(
        self,
        armourer: Armourer,
        batch: int,
        batch_pixels: int,
        watch: Callable[[int, float], None] = lambda size, seconds: None,
        hands: int = 1,
        begin: Callable[[], None] = lambda: None,
    ) -> None:
        self.armourer = armourer
        self.batch = batch
        self.batch_pixels = batch_pixels
        self.watch = watch  # told the size of each batch and the seconds it took
        self._waiting: deque[Arming | Call] = deque()
        self._changed = threading.Condition()
        self._open = True
        self._begin = begin  # what each thread does first
        self._threads = [threading.Thread(target=self._run, name=f"models-{hand}", daemon=True) for hand in range(hands)]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many pictures and calls wait."""
        return len(self._waiting)

    @property
    def alive(self) -> bool:
        """Whether all threads run."""
        return self._open and all(thread.is_alive() for thread in self._threads)

    def arm(self, pixels: Pixels, label: str | None) -> Future[Done]:
        """Arm one picture. The future raises SpecError for an unknown label, InputError for what cannot be armed."""
        future: Future[Done] = Future()
        self._put(Arming(pixels, label, future), urgent=False)
        return future

    def call(self, function: Callable[[], Result], urgent: bool = False) -> Future[Result]:
        """Run `function` in one of the threads; `urgent`: before every picture that waits."""
        future: Future[Result] = Future()
        self._put(Call(function, future), urgent)
        return future

    def close(self) -> None:
        """Finish what is at work, cancel what waits, and end the threads."""
        with self._changed:
            self._open = False
            left = list(self._waiting)
            self._waiting.clear()
            self._changed.notify_all()
        for errand in left:
            errand.future.cancel()
        for thread in self._threads:
            thread.join()

    def _put(self, errand: Arming | Call, urgent: bool) -> None:
        with self._changed:
            if not self._open:
                raise RuntimeError("the worker is closed")
            (self._waiting.appendleft if urgent else self._waiting.append)(errand)
            self._changed.notify()

    def _run(self) -> None:
        self._begin()
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting or not self._open)
                if not self._waiting:
                    return
                errands = self._take()
            batch = [errand for errand in errands if isinstance(errand, Arming)]
            for errand in errands:
                if isinstance(errand, Call):
                    settle(errand.future, errand.function)
            if batch:
                started = time.perf_counter()
                self._arm_all(batch)
                self.watch(len(batch), time.perf_counter() - started)
            del errands, batch  # pictures are not held while the thread waits

    def _take(self) -> list[Arming | Call]:
        """The errand that waits longest and, for a picture, its like. Those that were cancelled meanwhile are dropped."""
        first = self._waiting.popleft()
        taken = [first]
        if isinstance(first, Arming):
            height, width, _ = first.pixels.shape
            most = max(1, min(self.batch, self.batch_pixels // (height * width)))
            alike = [e for e in self._waiting if isinstance(e, Arming) and e.pixels.shape == first.pixels.shape][: most - 1]
            chosen = {id(errand) for errand in alike}
            self._waiting = deque(errand for errand in self._waiting if id(errand) not in chosen)
            taken += alike
        return [errand for errand in taken if errand.future.set_running_or_notify_cancel()]

    def _arm_all(self, batch: list[Arming]) -> None:
        """Settle every picture of a batch. If the armourer fails, its halves, down to one picture that is told why."""
        ready = []
        for picture in batch:
            try:
                ready.append((picture, *self._facts(picture)))
            except Exception as error:
                picture.future.set_exception(error)
        if not ready:
            return
        try:
            armed = self.armourer.arm([picture.pixels for picture, _, _ in ready], [label for _, _, label in ready])
        except Exception as error:
            if len(ready) == 1:
                ready[0][0].future.set_exception(told(error))
                return
            half = len(ready) // 2
            for part in (ready[:half], ready[half:]):
                self._arm_all([picture for picture, _, _ in part])
            return
        for (picture, settings, _), result in zip(ready, armed, strict=True):
            picture.future.set_result(Done(result, settings))

    def _facts(self, picture: Arming) -> tuple[Tag, int | None]:
        height, width = picture.pixels.shape[:2]
        label = None if picture.label is None else self.armourer.class_index(picture.label, height, width)
        return self.armourer.settings(height, width), label


def settle(future: Future[Result], function: Callable[[], Result]) -> None:
    """Give `future` what `function` returns or raises."""
    try:
        result = function()
    except Exception as error:
        future.set_exception(error)
    else:
        future.set_result(result)


def told(error: Exception) -> Exception:
    """What a picture that could not be armed raises."""
    if isinstance(error, ForearmError):
        return error
    if out_of_memory(error):
        return TooLarge("picture: not enough memory to arm it alone; a smaller one, for example 3000 x 2000")
    return error
