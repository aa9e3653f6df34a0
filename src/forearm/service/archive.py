"""Arm a zip of pictures: members are checked, armed two at a time, and sent on as they are done."""

from __future__ import annotations

import asyncio
import zipfile
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

from forearm.errors import ForearmError
from forearm.images.journal import Line
from forearm.jobs.workers import cause
from forearm.service.arming import arm_opened, sound, within
from forearm.service.engine import Engine
from forearm.service.problems import Problem
from forearm.service.reading import Listing, Member, ReadMember, members, read_member

JOURNAL = "forearm.jsonl"
AHEAD = 2  # members at work at a time: one is decoded or encoded while another is armed
EPOCH = (1980, 1, 1, 0, 0, 0)  # the first date that a zip knows


@dataclass(slots=True)
class Sink:
    """A file that is only written to: what came since it was last asked."""

    pieces: list[bytes] = field(default_factory=list)

    def write(self, data: bytes) -> int:
        """Take a piece."""
        self.pieces.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def taken(self) -> bytes:
        """All pieces so far, which are then forgotten."""
        data = b"".join(self.pieces)
        self.pieces.clear()
        return data


async def listed(engine: Engine, path: Path) -> tuple[Member, ...]:
    """The members of an archive on disk; InputError if it is refused as a whole."""
    found = sound(await engine.decoders.ask(members, Listing(path, engine.settings.archive)))
    if not found:
        raise Problem(422, "archive: no files in it; a zip of pictures, for example photos.zip")
    return found


async def armed_archive(engine: Engine, path: Path, found: tuple[Member, ...], *, tag: bool, again: bool) -> AsyncIterator[bytes]:
    """A zip, piece by piece: the armed members under their names, in their order, then `forearm.jsonl` with a line for
    each, also for those that failed or were left out. The same pictures give the same bytes, but for the seconds in the
    lines.
    """
    sink, lines = Sink(), []
    running: deque[asyncio.Task[tuple[bytes, Line]]] = deque()
    waiting = deque(found)
    try:
        with zipfile.ZipFile(sink, "w") as out:  # type: ignore[call-overload]  # a sink cannot be read or sought
            while waiting or running:
                while waiting and len(running) < AHEAD:
                    running.append(asyncio.create_task(armed_member(engine, path, waiting.popleft(), tag=tag, again=again)))
                data, line = await running.popleft()
                lines.append(line)
                engine.metrics.pictures.labels(line.status).inc()
                if line.status == "armed":
                    entry = zipfile.ZipInfo(line.file, next(member.date for member in found if member.name == line.file))
                    entry.external_attr = 0o644 << 16
                    out.writestr(entry, data)
                    yield sink.taken()
            out.writestr(zipfile.ZipInfo(JOURNAL, EPOCH), "".join(f"{line.text()}\n" for line in lines))
        yield sink.taken()
    finally:
        for task in running:
            task.cancel()


async def armed_member(engine: Engine, path: Path, member: Member, *, tag: bool, again: bool) -> tuple[bytes, Line]:
    """One member armed, or nothing, and its line. What is wrong with it costs it alone."""
    if member.skipped:
        return b"", Line(member.name, None, "skipped", member.skipped)

    async def work() -> tuple[bytes, Line]:
        async with engine.room:
            opened = sound(await engine.decoders.ask(read_member, ReadMember(path, member.name, engine.settings.limits)))
            return await arm_opened(engine, opened, member.name, label=None, tag=tag, again=again)

    try:
        return await within(engine, work())
    except Problem as problem:
        return b"", Line(member.name, None, "skipped" if problem.status == 409 else "failed", problem.detail)
    except ForearmError as error:
        return b"", Line(member.name, None, "failed", cause(error))
