"""Arm one picture for the service: decoded and encoded in the decoder processes, armed by the worker; `jobs.single` in stages."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Coroutine
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

from forearm.errors import InputError
from forearm.images.formats import format_of
from forearm.images.journal import Line
from forearm.jobs.lines import armed_line, tag_for
from forearm.jobs.workers import Refused, Save, save
from forearm.service.engine import Engine
from forearm.service.problems import Problem
from forearm.service.reading import Opened, Read, read

Result = TypeVar("Result")


def check_format(data: bytes) -> None:
    """Refuse what is no picture by its first bytes, before it is decoded: Problem 415, and 422 for nothing at all."""
    try:
        format_of(data)
    except InputError as error:
        raise Problem(415 if data else 422, f"picture: {error}") from None


def sound(answer: Result | Refused) -> Result:
    """What a decoder brought; InputError with its reason if it refused."""
    if isinstance(answer, Refused):
        raise InputError(answer.reason if answer.reason.startswith(("picture of ", "archive: ")) else f"picture: {answer.reason}")
    return answer


async def within(engine: Engine, job: Coroutine[Any, Any, Result]) -> Result:
    """The result of `job` within the settings' timeout; Problem 503 beyond."""
    seconds = engine.settings.timeout
    try:
        async with asyncio.timeout(seconds):
            return await job
    except TimeoutError:
        raise Problem(
            503, f"timeout: not done within {seconds:g} seconds; a smaller picture, or again later", {"Retry-After": "30"}
        ) from None


async def arm(engine: Engine, data: bytes, *, label: str | None = None, tag: bool = True, again: bool = False) -> tuple[bytes, Line]:
    """The armed file and its journal line: the same bytes as `forearm.jobs.single.protect_bytes` gives.

    InputError, SpecError and Problem for what cannot be armed. Holds a place among the decoded pictures while it works.
    """
    check_format(data)
    async with engine.room:
        opened = sound(await engine.decoders.ask(read, Read(data, engine.settings.limits)))
        return await arm_opened(engine, opened, "-", label=label, tag=tag, again=again)


async def arm_opened(engine: Engine, opened: Opened, name: str, *, label: str | None, tag: bool, again: bool) -> tuple[bytes, Line]:
    """Arm and encode a picture that was decoded. `name`: what its line calls it.

    The line has no key: a hash that the seed goes into would let a client try seeds until one fits.
    """
    started = time.perf_counter() - opened.seconds
    picture = opened.picture
    if opened.tag is not None and not again:
        raise Problem(409, "picture: one that is already armed; an original, or again=true to arm it once more")
    height, width = picture.pixels.shape[:2]
    done = await asyncio.wrap_future(engine.worker.arm(picture.pixels, label))
    tagging = tag_for(done.settings) if tag else None
    saved = sound(await engine.decoders.ask(save, Save(replace(picture, pixels=done.armed.pixels), tagging, engine.settings.limits)))
    line = Line(
        name,
        opened.sha256,
        "armed",
        "; ".join(picture.warnings),
        out=name,
        format=picture.format,
        width=width,
        height=height,
    )
    finish = partial(armed_line, line, done.armed, picture.pixels, saved, engine.armourer, 0.0)
    # A lossy file is measured anew, which takes the models.
    line = finish() if saved.pixels is None else await asyncio.wrap_future(engine.worker.call(finish, urgent=True))
    seconds = time.perf_counter() - started
    engine.metrics.arming.observe(seconds)
    return saved.data, replace(line, seconds=round(seconds, 3))
