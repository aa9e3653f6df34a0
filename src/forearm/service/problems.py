"""Refusals as RFC 9457 problems: one JSON object of the type application/problem+json, whatever went wrong."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from forearm.errors import ForearmError, InputError, SpecError

GONE = 499  # the client hung up: for the counters, nobody reads it
MEDIA_TYPE = "application/problem+json"
SCHEMA: dict[str, Any] = {
    "type": "object",
    "title": "Problem",
    "description": "RFC 9457",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string"},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string"},
    },
}


class Problem(Exception):
    """A request that is refused: the HTTP status, what is wrong and what is allowed, and further headers."""

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})


def body(status: int, detail: str) -> bytes:
    """The problem as JSON in ASCII. `type` is about:blank: the status says which kind it is, `detail` the rest."""
    title = "Client Closed Request" if status == GONE else HTTPStatus(status).phrase
    return json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()


def response(problem: Problem) -> Response:
    """The problem as a response."""
    return Response(body(problem.status, problem.detail), problem.status, problem.headers, MEDIA_TYPE)


def problem_of(error: Exception) -> Problem:
    """What a client is told of an error. Only what the project refuses on purpose is quoted."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, InputError | SpecError):
        return Problem(422, str(error))
    if isinstance(error, RequestValidationError):
        wrong = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()[:5])
        return Problem(422, f"{wrong}; see /openapi.json for what is allowed")
    if isinstance(error, ClientDisconnect):
        return Problem(GONE, "the client hung up; nobody reads this")
    if isinstance(error, HTTPException):
        return Problem(error.status_code, f"{error.detail}; see /openapi.json for what there is", error.headers)
    what = "models or settings that do not work" if isinstance(error, ForearmError) else "a fault of the service"
    return Problem(500, f"{what}; its log has the cause")


def install(app: FastAPI) -> None:
    """Make every error of `app` a problem. Faults are also raised on, so that the server logs them."""

    async def answer(request: Request, error: Exception) -> Response:
        return response(problem_of(error))

    for kind in (Problem, InputError, SpecError, RequestValidationError, ClientDisconnect, HTTPException, Exception):
        app.add_exception_handler(kind, answer)
