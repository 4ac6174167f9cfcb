"""The running configuration."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel
from starlette.responses import PlainTextResponse, Response

from tula.api.callers import Configurer, Reader
from tula.api.dependencies import Daemon, Force
from tula.api.errors import ErrorsBody, answer_problems
from tula.engine.control import ApplyOutcome, Order

router = APIRouter(
    tags=["configuration"],
    responses={409: {"model": ErrorsBody}, 422: {"model": ErrorsBody}},
)

Yes = Annotated[
    bool | None,
    Query(description="Also what takes much out of service; by default as `force`."),
]
Confirm = Annotated[
    float | None,
    Query(ge=1, le=86400, allow_inf_nan=False, description="Seconds to confirm in."),
]


class ConfirmedBody(BaseModel):
    """It is accepted."""

    confirmed: bool


class RollbackBody(BaseModel):
    """`number` runs again; `file_differs`: the daemon's file holds another configuration."""

    number: int
    changed: bool
    file: str
    file_differs: bool


class EntryBody(BaseModel):
    """An accepted configuration; `time` is in seconds since the epoch, `digest` its SHA-256."""

    number: int
    time: float
    digest: str
    by: str
    how: str
    changes: list[str]


class HistoryBody(BaseModel):
    """Accepted configurations, the oldest first."""

    entries: list[EntryBody]


MOST = 16 * 1024 * 1024
"""Bytes of a configuration, as ``tula.config`` has it."""
YAML = frozenset({"application/yaml", "application/x-yaml", "text/yaml"})


@router.post("/plan")
async def plan(
    request: Request,
    control: Daemon,
    _: Reader,
    force: bool = False,
    file: bool = False,
) -> Response:
    """What the configuration in the body (application/yaml) would change; without a body, the
    differences between the kernel and the running configuration, or with `file` that of the
    daemon's file. Changes nothing.
    """
    body = await _body(request)
    if body:
        _require_yaml(request)
    return _answer(await control.plan(body or None, force, file=file))


@router.post("/apply")
async def apply(
    request: Request,
    control: Daemon,
    by: Configurer,
    force: Force = False,
    yes: Yes = None,
    confirm: Confirm = None,
) -> Response:
    """Accepts the configuration in the body (application/yaml), and brings the kernel to it.

    With `confirm`, the one before comes back unless `/confirm` is asked for within so many
    seconds. `force` also allows a service to take this machine's SSH port.
    """
    _require_yaml(request)
    order = Order(by.who, "apply", force, _insists(yes, force), confirm)
    return _answer(await control.apply(await _body(request), order))


@router.post("/reload")
async def reload(
    control: Daemon, by: Configurer, force: Force = False, yes: Yes = None, confirm: Confirm = None
) -> Response:
    """Accepts what the daemon's file holds now, as `systemctl reload` does."""
    return _answer(
        await control.apply(None, Order(by.who, "reload", force, _insists(yes, force), confirm))
    )


@router.post("/confirm")
async def confirm(control: Daemon, by: Configurer) -> ConfirmedBody:
    """Keeps the configuration that waits for confirmation."""
    await control.confirm(by.who)
    return ConfirmedBody(confirmed=True)


@router.post("/rollback")
async def rollback(
    control: Daemon, by: Configurer, number: Annotated[int | None, Query(ge=1)] = None
) -> RollbackBody:
    """Goes back to an accepted configuration, by default the one before. What waits for
    confirmation is given up. Drains and weights stay as they are."""
    done = await control.rollback(number, by.who)
    return RollbackBody(
        number=done.number, changed=done.changed, file=done.file, file_differs=done.file_differs
    )


@router.get("/history")
async def history(control: Daemon, _: Reader) -> HistoryBody:
    """The accepted configurations, the oldest first; the last one is in force."""
    return HistoryBody(
        entries=[
            EntryBody(
                number=entry.number,
                time=entry.time,
                digest=entry.digest,
                by=entry.by,
                how=entry.how,
                changes=list(entry.changes),
            )
            for entry in await control.history()
        ]
    )


@router.get("/diff")
async def diff(
    control: Daemon, _: Reader, number: Annotated[int | None, Query(ge=1)] = None
) -> PlainTextResponse:
    """How an accepted configuration, by default the one before, differs from the running one: a
    unified diff without secrets, empty if it does not."""
    return PlainTextResponse(await control.diff(number))


def _insists(yes: bool | None, force: bool) -> bool:
    return force if yes is None else yes


def _require_yaml(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in YAML:
        # A browser sends this kind only after it asked, so no other site's form can.
        raise HTTPException(415, "send the configuration's text as application/yaml")


async def _body(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST:
            raise HTTPException(
                413, f"larger than {MOST // 1024 // 1024} MiB; this is not a configuration"
            )
    return bytes(body)


def _answer(outcome: ApplyOutcome) -> Response:
    if outcome.problems:
        return answer_problems(outcome.problems)
    warnings = json.dumps([asdict(warning) for warning in outcome.warnings]).encode()
    changed = json.dumps(outcome.changed).encode()
    summary = json.dumps(outcome.summary).encode()
    body = b'{"changed": %b, "summary": %b, "steps": %b, "warnings": %b}' % (
        *(changed, summary),
        *(outcome.steps, warnings),
    )
    return Response(body, media_type="application/json")
