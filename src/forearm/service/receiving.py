"""Take in what a client sends, within bounds, and notice when it hangs up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

from fastapi import Request
from starlette.datastructures import UploadFile
from starlette.types import Message

from forearm.service.problems import GONE, Problem
from forearm.service.settings import Settings

Result = TypeVar("Result")
FORM = 64 * 1024  # bytes of a form around its files
EXAMPLE = "for example a photo of 5 MB"


@asynccontextmanager
async def in_time(seconds: float) -> AsyncIterator[None]:
    """The block receives a body; Problem 408 where that takes longer."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise Problem(408, f"body: not here within {seconds:g} seconds; a smaller file, or a faster line") from None


async def receive(request: Request, most: int, seconds: float, take: Callable[[bytes], object]) -> None:
    """Give a request's body to `take` piece by piece.

    Problem 413 as soon as it is or will be longer than `most` bytes, 408 beyond `seconds`, 415 for a form, whose bytes are not the file's.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.startswith("multipart/"):
        raise Problem(415, f"content-type: got {kind}; the file's bytes as the body, for example curl --data-binary @photo.jpg")
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said) > most:
        raise Problem(413, f"body: {said} bytes; up to {most}, {EXAMPLE}")
    total = 0
    async with in_time(seconds):
        async for piece in request.stream():
            total += len(piece)
            if total > most:
                raise Problem(413, f"body: more than {most} bytes; up to {most}, {EXAMPLE}")
            take(piece)


async def body_of(request: Request, settings: Settings) -> bytes:
    """A picture file's whole bytes; see `receive`."""
    held: list[bytes] = []
    await receive(request, settings.limits.max_bytes, settings.upload_timeout, held.append)
    return b"".join(held)


async def form_of(request: Request, settings: Settings, names: tuple[str, ...]) -> dict[str, bytes]:
    """The files of a form, in the order of `names`. Problem 413, 408 or 415 as for a body, 422 for other parts."""
    if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
        raise Problem(415, f"content-type: no form; multipart/form-data with the files {' and '.join(names)}")
    most, total = len(names) * settings.limits.max_bytes + FORM, 0

    async def capped() -> Message:
        nonlocal total
        message = await request.receive()
        total += len(message.get("body", b""))
        if total > most:
            raise Problem(413, f"body: more than {most} bytes; up to {settings.limits.max_bytes} a file, {EXAMPLE}")
        return message

    form_bounds = {"max_files": len(names), "max_fields": len(names), "max_part_size": FORM}
    async with in_time(settings.upload_timeout), Request(request.scope, capped).form(**form_bounds) as form:
        found = form.multi_items()
        files = {name: file for name, file in found if name in names and isinstance(file, UploadFile)}
        if not len(found) == len(files) == len(names):
            raise Problem(422, f"form: {len(found)} parts; the files {' and '.join(names)}, one each")
        return {name: await files[name].read() for name in names}


async def attended(request: Request, job: Coroutine[Any, Any, Result]) -> Result:
    """The result of `job`, which is cancelled when the client hangs up."""

    async def gone() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    task, watch = asyncio.ensure_future(job), asyncio.ensure_future(gone())
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise Problem(GONE, "the client hung up; nobody reads this")
        return task.result()
    finally:
        task.cancel()
        watch.cancel()
