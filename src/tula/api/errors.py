"""Answers to what goes wrong, all of one shape: ``{"errors": [{"message": …, …}]}``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from tula.engine.control import (
    BusyError,
    LossError,
    NoSuchBackendError,
    NothingToConfirmError,
    RefusedError,
)
from tula.model.errors import KernelError, StateError
from tula.model.problem import PlacedProblem

Error = dict[str, Any]


class ErrorBody(BaseModel):
    """One problem. ``line``, ``column`` and ``path`` are those of a configuration, ``file`` is one
    of several that it is in, and ``near`` are names that may be meant."""

    message: str
    path: str | None = None
    line: int | None = None
    column: int | None = None
    file: str | None = None
    near: list[str] | None = None


class ErrorsBody(BaseModel):
    """The body of every answer that is not a success."""

    errors: list[ErrorBody]


def answer_errors(
    status: int, errors: Iterable[Error], headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer that tells these errors."""
    return JSONResponse({"errors": list(errors)}, status, headers)


def answer_problems(problems: Iterable[PlacedProblem]) -> JSONResponse:
    """The answer to a configuration that is refused."""
    return answer_errors(422, (_placed(problem) for problem in problems))


def _placed(problem: PlacedProblem) -> Error:
    """``file`` only where there are several."""
    return {name: value for name, value in asdict(problem).items() if name != "file" or value}


def add_handlers(app: FastAPI) -> None:
    """Has the app answer its errors in that shape."""

    @app.exception_handler(NoSuchBackendError)
    async def no_such_backend(_: Request, error: NoSuchBackendError) -> JSONResponse:
        return answer_errors(404, [{"message": str(error), "near": list(error.near)}])

    @app.exception_handler(LossError)
    async def loss(_: Request, error: LossError) -> JSONResponse:
        return answer_errors(409, [{"message": line} for line in error.lines])

    @app.exception_handler(NothingToConfirmError)
    async def nothing(_: Request, error: NothingToConfirmError) -> JSONResponse:
        return answer_errors(409, [{"message": str(error)}])

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return answer_errors(422, [{"message": line} for line in error.lines])

    @app.exception_handler(BusyError)
    async def busy(_: Request, error: BusyError) -> JSONResponse:
        return answer_errors(503, [{"message": str(error)}], {"Retry-After": "1"})

    @app.exception_handler(KernelError)
    @app.exception_handler(StateError)
    async def failed(_: Request, error: Exception) -> JSONResponse:
        return answer_errors(500, [{"message": str(error)}])

    @app.exception_handler(RequestValidationError)
    async def invalid(_: Request, error: RequestValidationError) -> JSONResponse:
        return answer_errors(422, map(_invalid, error.errors()))

    @app.exception_handler(HTTPException)
    async def http(_: Request, error: HTTPException) -> JSONResponse:
        return answer_errors(error.status_code, [{"message": str(error.detail)}], error.headers)

    @app.exception_handler(Exception)
    async def unforeseen(_: Request, error: Exception) -> JSONResponse:
        # What it was goes to the log, with its traceback; Starlette raises it again for that.
        return answer_errors(500, [{"message": f"internal error: {type(error).__name__}"}])


def _invalid(error: Mapping[str, Any]) -> Error:
    """Pydantic's error without its echo of the input."""
    where = [str(part) for part in error["loc"] if part not in ("body", "query", "path")]
    return {"message": ": ".join(filter(None, [".".join(where), error["msg"]]))}
