"""Processes that decode and encode, each with a bound on memory and time: what one file does to its process costs that file alone.

It is a fence against files that crash a decoder or ask for too much. It is no jail: the processes run as the same user.
"""

from __future__ import annotations

import asyncio
import atexit
import multiprocessing
import queue
import resource
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, TypeVar, cast

from forearm.jobs.workers import Refused, cause

DIED = "the decoder process died on it, of a damaged file or for want of memory; a smaller picture, or the same saved anew"

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Decoder:
    """One process and the line to it."""

    process: BaseProcess
    line: Connection

    @classmethod
    def start(cls, memory: int) -> Decoder:
        """A new process. It is spawned, since the parent runs threads."""
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=run, args=(theirs, memory), daemon=True)
        process.start()
        theirs.close()
        return cls(process, ours)

    def end(self) -> None:
        """Stop the process, whatever it does."""
        self.line.close()
        self.process.kill()
        self.process.join()
        self.process.close()


class Decoders:
    """`count` processes of `memory` bytes each. One that dies or needs more than `seconds` is replaced, its errand refused."""

    def __init__(self, count: int, memory: int, seconds: float) -> None:
        self.count = count
        self.memory = memory
        self.seconds = seconds
        self.ended = 0  # how many died or were ended
        self._free: queue.SimpleQueue[Decoder | None] = queue.SimpleQueue()  # None: one to be started
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decoder")
        for _ in range(count):
            self._free.put(Decoder.start(memory))
        atexit.register(self.close)  # before multiprocessing's own, which would wait for them

    async def ask(self, work: Callable[[Request], Answer | Refused], request: Request) -> Answer | Refused:
        """`work(request)`, a module-level function, in one of the processes."""
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._ask, work, request)

    def _ask(self, work: Callable[[Request], Answer | Refused], request: Request) -> Answer | Refused:
        decoder, whole = self._free.get(), False
        try:
            decoder = decoder or Decoder.start(self.memory)
            decoder.line.send((work, request))
            if not decoder.line.poll(self.seconds):
                return Refused(f"more than {self.seconds:g} seconds of work on it; a smaller picture, for example 6000 x 4000")
            answer = cast("Answer | Refused", decoder.line.recv())
            whole = True
            return answer
        except (EOFError, OSError):
            return Refused(DIED)
        finally:
            if not whole:  # whatever broke off midway: its line is never used again
                self.ended += 1
                if decoder is not None:
                    decoder.end()
            self._free.put(decoder if whole else None)

    def close(self) -> None:
        """End all processes. Nothing may be asked any more."""
        atexit.unregister(self.close)
        self._threads.shutdown(wait=True, cancel_futures=True)
        while not self._free.empty():
            decoder = self._free.get_nowait()
            if decoder is not None:
                decoder.end()


def run(line: Connection, memory: int) -> None:
    """A decoder process: errands in, answers out, until the line breaks, as it does when the parent ends."""
    for number in (signal.SIGINT, signal.SIGTERM):  # a stop is for the parent, which still drains
        signal.signal(number, signal.SIG_IGN)
    fence(memory)
    while True:
        try:
            work, request = line.recv()
        except (EOFError, OSError):
            return
        answer = attempt(work, request)
        del work, request
        try:
            line.send(answer)
        except (MemoryError, ValueError):  # nothing was sent yet: it could not be packed
            line.send(Refused("more than the memory holds; a smaller picture, for example 6000 x 4000"))
        except OSError:
            return


def attempt(work: Callable[[Any], Any], request: object) -> Any:
    """`work(request)`, or why it failed."""
    try:
        return work(request)
    except Exception as error:  # a hostile file may raise anything
        return Refused(cause(error))


def fence(memory: int) -> None:
    """Bound this process: `memory` bytes beyond what it holds now, no files written, no core dumped. Without /proc no bound on memory."""
    from forearm.service import reading  # noqa: F401  (what it needs is held before the bound)

    limits = [(resource.RLIMIT_FSIZE, 0), (resource.RLIMIT_CORE, 0)]
    pages = Path("/proc/self/statm")
    if pages.is_file():
        limits.append((resource.RLIMIT_AS, int(pages.read_text().split()[0]) * resource.getpagesize() + memory))
    for kind, most in limits:
        _, hard = resource.getrlimit(kind)
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
