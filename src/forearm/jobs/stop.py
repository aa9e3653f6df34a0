"""Stop a job kindly: the first SIGINT or SIGTERM asks it to finish what is in flight, a second SIGINT breaks it off."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Says whether the job was asked to stop, and by which signal (0: it was not)."""

    def __init__(self) -> None:
        self.signal = 0

    def __call__(self) -> bool:
        return self.signal != 0

    def ask(self, number: int, frame: FrameType | None = None) -> None:
        """A signal handler. The second SIGINT raises KeyboardInterrupt."""
        if number == signal.SIGINT and self.signal:
            raise KeyboardInterrupt
        self.signal = self.signal or number


@contextmanager
def on_signals() -> Iterator[Stop]:
    """A `Stop` that listens to SIGINT and SIGTERM inside the block; outside the main thread it hears nothing."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop.ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
