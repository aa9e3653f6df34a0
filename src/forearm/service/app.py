"""The endpoints. Bytes in, bytes out: a picture is the body of a request and of its answer."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path
from typing import IO, Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from starlette.types import ASGIApp

import forearm
from forearm.images.formats import FORMATS
from forearm.images.journal import Line
from forearm.jobs.arm import Armourer
from forearm.models.load import embedded, locate
from forearm.service import problems
from forearm.service.archive import armed_archive, listed
from forearm.service.arming import arm, check_format, sound, within
from forearm.service.engine import Engine, Verifier
from forearm.service.guard import Guard
from forearm.service.metrics import MEDIA_TYPE as TEXT
from forearm.service.metrics import Metrics
from forearm.service.problems import Problem
from forearm.service.reading import Read, look, read
from forearm.service.receiving import attended, body_of, form_of, receive
from forearm.service.settings import Settings

PAGE = {
    "/": ("index.html", "text/html"),
    "/page/page.css": ("page.css", "text/css"),
    "/page/page.js": ("page.js", "text/javascript"),
    "/page/icon.svg": ("icon.svg", "image/svg+xml"),
}
MEDIA = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "BMP": "image/bmp", "TIFF": "image/tiff"}
LONGEST_HEADER = 6000  # bytes of a report in a header

Label = Annotated[str | None, Query(description="The class, by name or number; left out: the labeller says.", max_length=200)]
Tagged = Annotated[bool, Query(description="Write into the file that it is armed.")]
Again = Annotated[bool, Query(description="Arm what is armed already once more.")]


def binary(*kinds: str) -> dict[str, Any]:
    """An OpenAPI media map of raw bytes."""
    return {kind: {"schema": {"type": "string", "format": "binary"}} for kind in kinds}


PICTURE_IN = {"requestBody": {"required": True, "content": binary(*MEDIA.values(), "application/octet-stream")}}
ARCHIVE_IN = {"requestBody": {"required": True, "content": binary("application/zip", "application/octet-stream")}}
PAIR_IN = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["armed", "original"],
                    "properties": {name: {"type": "string", "format": "binary"} for name in ("armed", "original")},
                }
            }
        },
    }
}


def refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses for these problems, and those that any endpoint may give."""
    content = {problems.MEDIA_TYPE: {"schema": problems.SCHEMA}}
    return {status: {"description": "Problem", "content": content} for status in (400, 401, 403, 405, 421, 500, *statuses)}


def engine_of(request: Request) -> Engine:
    """The service that a request came to."""
    engine: Engine = request.app.state.engine
    return engine


Served = Annotated[Engine, Depends(engine_of)]


async def admitted(engine: Served) -> AsyncIterator[None]:
    """A place in the queue until the answer is sent; Problem 429 if there is none."""
    with engine.gate.enter():
        yield


async def spooled() -> AsyncIterator[IO[bytes]]:
    """A file on disk until the answer is sent."""
    with tempfile.NamedTemporaryFile(prefix="forearm-", suffix=".zip") as file:
        yield file


Spool = Annotated[IO[bytes], Depends(spooled)]
work = APIRouter(prefix="/v1", dependencies=[Depends(admitted)], responses=refusals(408, 413, 422, 429, 503))
free = APIRouter(responses=refusals())


@work.post(
    "/arm",
    response_class=Response,
    openapi_extra=PICTURE_IN,
    responses={200: {"content": binary(*MEDIA.values()), "description": "The armed file, of the same format."}, **refusals(409, 415)},
)
async def arm_one(request: Request, engine: Served, label: Label = None, tag: Tagged = True, again: Again = False) -> Response:
    """Arm one picture. The body is the file; its content tells the format, whatever Content-Type says. What was done is in the
    header `Forearm-Report`, as the JSON line that `forearm protect` writes into its journal."""
    data = await body_of(request, engine.settings)
    try:
        armed, line = await attended(request, within(engine, arm(engine, data, label=label, tag=tag, again=again)))
    except Exception:
        engine.metrics.pictures.labels("failed").inc()
        raise
    engine.metrics.pictures.labels("armed").inc()
    return Response(armed, media_type=MEDIA[str(line.format)], headers={"Forearm-Report": header(line)})


@work.post(
    "/arm/zip",
    response_class=StreamingResponse,
    openapi_extra=ARCHIVE_IN,
    responses={200: {"content": binary("application/zip"), "description": "The armed pictures and forearm.jsonl."}, **refusals(415)},
)
async def arm_zip(request: Request, engine: Served, spool: Spool, tag: Tagged = True, again: Again = False) -> StreamingResponse:
    """Arm every picture of a zip. The answer is a zip of the armed files under their names, sent as they are done, and
    `forearm.jsonl` with a line for each member, also for those that failed or were left out."""
    await receive(request, engine.settings.archive.max_bytes, engine.settings.upload_timeout, spool.write)
    spool.flush()
    path = Path(spool.name)
    found = await attended(request, within(engine, listed(engine, path)))
    return StreamingResponse(
        armed_archive(engine, path, found, tag=tag, again=again),
        media_type="application/zip",
        headers={"Content-Disposition": 'attachment; filename="armed.zip"'},
    )


@work.post("/verify", openapi_extra=PAIR_IN, responses=refusals(415))
async def verify(request: Request, engine: Served, label: Label = None) -> JSONResponse:
    """Measure an armed picture against its original, as `forearm verify` does: budget, label, margins, and the embedded
    targets under attack before and after. A form with the files `armed` and `original`."""
    files = await form_of(request, engine.settings, ("armed", "original"))

    async def check() -> dict[str, Any]:
        async with engine.room:
            for data in files.values():
                check_format(data)
            limits = engine.settings.limits
            after, before = [sound(await engine.decoders.ask(read, Read(data, limits))) for data in files.values()]
            call = engine.worker.call(lambda: engine.verifier(before.picture, after.picture, after.tag, label))
            check = await asyncio.wrap_future(call)
        return {**dataclasses.asdict(check), "tag": after.tag}

    return JSONResponse(finite(await attended(request, within(engine, check()))))


@work.post("/inspect", openapi_extra=PICTURE_IN, responses=refusals(415))
async def inspect(request: Request, engine: Served) -> JSONResponse:
    """What a picture is, and whether and with what it is armed. A tag that was stripped cannot be seen."""
    data = await body_of(request, engine.settings)
    check_format(data)
    answer = engine.decoders.ask(look, Read(data, engine.settings.limits))
    return JSONResponse(finite(sound(await attended(request, within(engine, answer)))))


@free.get("/v1/models")
async def models(engine: Served) -> JSONResponse:
    """With what this service arms, its limits, and the cards of the embedded models."""
    return JSONResponse(finite(facts(engine)))


@free.get("/health")
async def health() -> JSONResponse:
    """Whether the process answers."""
    return JSONResponse({"status": "up", "forearm": forearm.__version__})


@free.get("/ready", responses=refusals(503))
async def ready(engine: Served) -> JSONResponse:
    """Whether pictures can be armed now."""
    if not engine.ready:
        raise Problem(503, "ready: the models are not at work; again in a moment", {"Retry-After": "1"})
    return JSONResponse({"status": "ready"})


@free.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}})
async def counters(engine: Served) -> Response:
    """Counters in Prometheus' text format."""
    return Response(engine.metrics.text(), media_type=TEXT)


def create_app(settings: Settings, armourer: Armourer, verifier: Verifier) -> ASGIApp:
    """The service as an ASGI application. Its thread and processes start with it and end with it."""
    counts = Metrics()

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        app.state.engine = engine = Engine.start(settings, armourer, verifier, counts)
        try:
            await engine.warm()
            yield
        finally:
            engine.close()

    app = FastAPI(
        title="forearm",
        version=forearm.__version__,
        summary="Arm pictures before they are published.",
        docs_url=None,  # their pages load scripts from elsewhere
        redoc_url=None,
        lifespan=life,
        redirect_slashes=False,
    )
    problems.install(app)
    app.include_router(work)
    app.include_router(free)
    folder = resources.files("forearm.service") / "page"
    for path, (name, kind) in PAGE.items():
        app.add_route(path, page((folder / name).read_bytes(), kind), methods=["GET"], include_in_schema=False)
    return Guard(app, settings, counts)


def page(data: bytes, kind: str) -> Callable[[Request], Coroutine[Any, Any, Response]]:
    """An endpoint that gives a file of the page."""

    async def answer(request: Request) -> Response:
        return Response(data, media_type=kind, headers={"Cache-Control": "no-cache"})

    return answer


def facts(engine: Engine) -> dict[str, Any]:
    """What a client may want to know before it sends a picture."""
    kinds = {"small": 32, "photo": 256}
    settings = {kind: dict(engine.armourer.settings(side, side)) for kind, side in kinds.items()}
    for values in settings.values():
        values.pop("seed", None)  # it would help to undo the arming
    limits = engine.settings.limits
    return {
        "forearm": forearm.__version__,
        "formats": list(FORMATS),
        "limits": {
            "bytes": limits.max_bytes,
            "pixels": limits.max_pixels,
            "side": limits.max_side,
            "zip_bytes": engine.settings.archive.max_bytes,
            "zip_members": engine.settings.archive.max_members,
        },
        "arming": settings,
        "notes": engine.armourer.notes(),
        "models": [locate(name).card.model_dump() for name in embedded()],
    }


def header(line: Line) -> str:
    """A line as a header's value: JSON in ASCII, without the reason where a file's own texts made it too long."""
    text = line.text()
    return text if len(text) <= LONGEST_HEADER else dataclasses.replace(line, reason="").text()


def finite(value: Any) -> Any:
    """`value` with null for numbers that JSON has no word for."""
    if isinstance(value, dict):
        return {name: finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
