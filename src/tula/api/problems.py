"""Problem details (RFC 9457): the one shape of every answer that is not a success.

``application/problem+json`` with type, title, status and detail, and beside them ``errors``, a list
of all that is wrong, with the places in a configuration. The gateway answers in the same shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from enum import StrEnum
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, Field
from starlette.responses import JSONResponse

from tula.model.problem import PlacedProblem

Error = Mapping[str, Any]

MEDIA_TYPE = "application/problem+json"


class Kind(StrEnum):
    """What a program may want to tell apart within one status: the end of ``type``."""

    NO_SUCH_BACKEND = "no-such-backend"
    LOSS = "loss"
    """it takes much out of service, and is done with ``force=true``"""
    NOTHING_TO_CONFIRM = "nothing-to-confirm"
    SOURCE = "source"
    """somebody else owns the configuration"""
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    """a balancer that was meant does not answer"""
    ANOTHER = "another-configuration"
    """another configuration runs on a balancer than when it was asked first"""
    CONFIGURATION = "configuration"
    """the configuration has problems"""

    @property
    def uri(self) -> str:
        """The problem's ``type``."""
        return f"urn:problem-type:tula:{self}"


_TITLES = {
    Kind.NO_SUCH_BACKEND: "No such backend",
    Kind.LOSS: "Too much would be lost",
    Kind.NOTHING_TO_CONFIRM: "Nothing to confirm",
    Kind.SOURCE: "The configuration has another owner",
    Kind.REFUSED: "Refused",
    Kind.UNREACHABLE: "A balancer does not answer",
    Kind.ANOTHER: "Another configuration runs",
    Kind.CONFIGURATION: "The configuration has problems",
}


class ErrorBody(BaseModel):
    """One error. `line`, `column` and `path` are those of a configuration, `file` is one of several
    that it is in, and `near` are names that may be meant. `machine` is the balancer that it is
    about, where all were asked."""

    message: str
    path: str | None = None
    line: int | None = None
    column: int | None = None
    file: str | None = None
    near: list[str] | None = None
    machine: str | None = None


class ProblemBody(BaseModel):
    """Problem details (RFC 9457). `type` is `about:blank` where the status says all; `errors` has
    everything that is wrong, `detail` the first of it."""

    type: str
    title: str
    status: int = Field(ge=400, le=599)
    detail: str
    errors: list[ErrorBody] = Field(min_length=1)


def problem(status: int, errors: Iterable[Error], kind: Kind | None = None) -> dict[str, Any]:
    """The problem details of these errors, of which there is one at least."""
    found = [dict(error) for error in errors]
    detail = str(found[0]["message"])
    if len(found) > 1:
        detail += f" (and {len(found) - 1} more)"
    return {
        "type": "about:blank" if kind is None else kind.uri,
        "title": HTTPStatus(status).phrase if kind is None else _TITLES[kind],
        "status": status,
        "detail": detail,
        "errors": found,
    }


def answer_errors(
    status: int,
    errors: Iterable[Error],
    headers: Mapping[str, str] | None = None,
    kind: Kind | None = None,
) -> JSONResponse:
    """The answer that tells these errors."""
    return JSONResponse(problem(status, errors, kind), status, headers, MEDIA_TYPE)


def answer_problems(problems: Iterable[PlacedProblem]) -> JSONResponse:
    """The answer to a configuration that is refused."""
    return answer_errors(422, map(_placed, problems), kind=Kind.CONFIGURATION)


def _placed(found: PlacedProblem) -> Error:
    """``file`` only where there are several."""
    return {name: value for name, value in asdict(found).items() if name != "file" or value}


def answers(*statuses: int, **told: str) -> dict[int | str, dict[str, Any]]:
    """What a route may answer besides success, for its ``responses``; ``s404="…"`` says when."""
    described = {int(name[1:]): text for name, text in told.items()}
    return {
        status: {
            "model": ProblemBody,
            "description": described.get(status, HTTPStatus(status).phrase),
        }
        for status in (*statuses, *described)
    }
