"""Answers to what goes wrong, all of one shape (see ``tula.api.problems``)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from tula.api.problems import Error, Kind, answer_errors
from tula.engine.control import (
    BusyError,
    ConditionError,
    LossError,
    NoSuchBackendError,
    NothingToConfirmError,
    RefusedError,
    SourceError,
)
from tula.engine.everywhere import JointError, MemberError, Result, Trouble
from tula.model.errors import KernelError, StateError


def add_handlers(app: FastAPI) -> None:
    """Has the app answer its errors in that shape."""

    @app.exception_handler(NoSuchBackendError)
    async def no_such_backend(_: Request, error: NoSuchBackendError) -> JSONResponse:
        told = {"message": str(error), "near": list(error.near)}
        return answer_errors(404, [told], kind=Kind.NO_SUCH_BACKEND)

    @app.exception_handler(LossError)
    async def loss(_: Request, error: LossError) -> JSONResponse:
        return answer_errors(409, ({"message": line} for line in error.lines), kind=Kind.LOSS)

    @app.exception_handler(NothingToConfirmError)
    async def nothing(_: Request, error: NothingToConfirmError) -> JSONResponse:
        return answer_errors(409, [{"message": str(error)}], kind=Kind.NOTHING_TO_CONFIRM)

    @app.exception_handler(SourceError)
    async def owned(_: Request, error: SourceError) -> JSONResponse:
        return answer_errors(409, [{"message": str(error)}], kind=Kind.SOURCE)

    @app.exception_handler(ConditionError)
    async def another(_: Request, error: ConditionError) -> JSONResponse:
        headers = {"ETag": f'"{error.digest}"'} if error.digest else None
        return answer_errors(412, [{"message": str(error)}], headers)

    @app.exception_handler(RefusedError)
    async def refused(_: Request, error: RefusedError) -> JSONResponse:
        return answer_errors(422, ({"message": line} for line in error.lines), kind=Kind.REFUSED)

    @app.exception_handler(JointError)
    async def joint(_: Request, error: JointError) -> JSONResponse:
        status, kind = _JOINT[error.trouble]
        return answer_errors(status, _by_machine(error), kind=kind)

    @app.exception_handler(MemberError)
    async def member(_: Request, error: MemberError) -> JSONResponse:
        status, kind = _JOINT[error.trouble]
        return answer_errors(status, error.errors, kind=kind)

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


_JOINT: Mapping[Trouble, tuple[int, Kind | None]] = {
    Trouble.UNREACHABLE: (409, Kind.UNREACHABLE),
    Trouble.CONFIGURATION: (422, Kind.CONFIGURATION),
    Trouble.REFUSED: (422, Kind.REFUSED),
    Trouble.NO_SUCH_BACKEND: (404, Kind.NO_SUCH_BACKEND),
    Trouble.LOSS: (409, Kind.LOSS),
    Trouble.SOURCE: (409, Kind.SOURCE),
    Trouble.ANOTHER: (409, Kind.ANOTHER),
    Trouble.LOST: (409, Kind.NOTHING_TO_CONFIRM),
    Trouble.FAILED: (500, None),
}


def _by_machine(error: JointError) -> Iterator[Error]:
    """What each machine said; where something was changed, also that it was taken back."""
    for told in error.machines:
        for each in told.errors:
            yield {
                **each,
                "message": f"{told.machine}: {each['message']}",
                "machine": told.machine,
            }
    for told in error.machines:
        if told.result is Result.TAKEN_BACK:
            yield {"message": f"{told.machine}: has taken it back", "machine": told.machine}


def _invalid(error: Mapping[str, Any]) -> Error:
    """Pydantic's error without its echo of the input."""
    where = [str(part) for part in error["loc"] if part not in ("body", "query", "path", "header")]
    return {"message": ": ".join(filter(None, [".".join(where), error["msg"]]))}
