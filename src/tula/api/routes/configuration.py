"""The running configuration: what it is, and how it becomes another."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from pydantic import BaseModel
from starlette.responses import JSONResponse, PlainTextResponse, Response

from tula.api.callers import Configurer, Reader
from tula.api.dependencies import Daemon, DryRun, Force, IfMatch
from tula.api.problems import answer_problems, answers
from tula.api.status_bodies import PlacedProblemBody
from tula.engine.callers import Caller, Scope
from tula.engine.control import ApplyOutcome, Order

router = APIRouter(tags=["configuration"])

Yes = Annotated[
    bool | None,
    Query(description="Also what takes much out of service; by default as `force`."),
]
Confirm = Annotated[
    float | None,
    Query(ge=1, le=86400, allow_inf_nan=False, description="Seconds to confirm in."),
]
Number = Annotated[int | None, Query(ge=1, le=10**9)]
Digest = Annotated[
    str | None,
    Query(
        pattern="^[0-9a-fA-F]{8,64}$",
        description="Of the configuration, or its beginning; instead of a number.",
    ),
]


class StepBody(BaseModel):
    """One step of a change in the kernel."""

    verb: str
    what: str
    name: str
    detail: str


class ChangeBody(BaseModel):
    """What was changed, or would be: `changed` in the kernel, `summary` in a reader's terms, and
    step by step. `digest` is that of the configuration that was sent."""

    changed: bool
    dry_run: bool
    digest: str
    summary: list[str]
    steps: list[StepBody]
    warnings: list[PlacedProblemBody]


class ConfirmedBody(BaseModel):
    """It is accepted, unless this was a dry run."""

    confirmed: bool
    dry_run: bool


class RollbackBody(BaseModel):
    """`number` runs again, or would; `summary` is what changes in the configuration;
    `file_differs`: the daemon's file holds another one."""

    number: int
    changed: bool
    dry_run: bool
    digest: str
    summary: list[str]
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
YAML = ("application/yaml", "application/x-yaml", "text/yaml")

_TAG: dict[str, Any] = {
    "headers": {
        "ETag": {
            "description": "The configuration's SHA-256, in quotes, for `If-Match`.",
            "schema": {"type": "string", "pattern": '^"[0-9a-f]{64}"$'},
        }
    }
}
_DOCUMENT = {"type": "object", "description": "A configuration; `tula schema` describes it."}
_CHANGED: dict[int | str, dict[str, Any]] = {200: _TAG}
_ANOTHER = answers(s412="Another configuration runs than `If-Match` names; `ETag` has its.")
_INVALID = answers(
    s422="A parameter is wrong, or the configuration has problems, with their places."
)


def yaml_body(required: bool) -> dict[str, Any]:
    content = {kind: {"schema": _DOCUMENT} for kind in YAML}
    return {"requestBody": {"required": required, "content": content}}


@router.get(
    "/configuration",
    response_class=Response,
    responses={
        200: {
            **_TAG,
            "description": "The configuration's text.",
            "content": {YAML[0]: {"schema": _DOCUMENT}},
        }
    },
)
async def configuration(control: Daemon, by: Reader) -> Response:
    """The text of the running configuration. Without scope configure its secrets are hidden; the
    ETag is that of the text with them."""
    hidden = not by.scope.covers(Scope.CONFIGURE)
    found = await control.configuration(hidden=hidden)
    headers = {
        "ETag": f'"{found.digest}"',
        "Vary": "Authorization",
        "Cache-Control": "no-store",
    }
    return Response(found.text, 200, headers, YAML[0])


@router.post(
    "/plan",
    response_class=JSONResponse,
    responses={200: {"model": ChangeBody}, **_INVALID, **answers(413, 415)},
    openapi_extra=yaml_body(required=False),
)
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
    body = await body_of(request)
    if body:
        require_yaml(request)
    return _answer(await control.plan(body or None, force, file=file), dry_run=True)


@router.post(
    "/apply",
    response_class=JSONResponse,
    responses={
        200: {**_TAG, "model": ChangeBody},
        **_ANOTHER,
        **_INVALID,
        **answers(
            413,
            415,
            s409="The file owns the configuration (type `…:source`), or too much would be lost, "
            "which `force=true` allows (type `…:loss`).",
            s428="New content from the network needs `If-Match`.",
        ),
    },
    openapi_extra=yaml_body(required=True),
)
async def apply(
    request: Request,
    control: Daemon,
    by: Configurer,
    match: IfMatch,
    force: Force = False,
    yes: Yes = None,
    confirm: Confirm = None,
    dry_run: DryRun = False,
) -> Response:
    """Accepts the configuration in the body (application/yaml), and brings the kernel to it.

    With `confirm`, the one before comes back unless `/confirm` is asked for within so many
    seconds. `force` also allows a service to take this machine's SSH port. From the network,
    `If-Match` must be given, the running configuration must say `api: source: api`, and what runs
    programs or names files must be as it runs or as in the machine's own file.
    """
    require_yaml(request)
    network = _from_network(by)
    if network and "if-match" not in request.headers:
        raise HTTPException(
            428,
            "new content needs If-Match with the ETag of the configuration that it was made from "
            "(GET /api/v1/configuration), or * to replace whichever runs",
        )
    order = Order(
        by.who,
        "apply",
        force,
        _insists(yes, force),
        confirm,
        match=match,
        dry=dry_run,
        network=network,
        peer=by.scope is Scope.PEER,
    )
    return _answer(await control.apply(await body_of(request), order), dry_run)


@router.post(
    "/reload",
    response_class=JSONResponse,
    responses={
        200: {**_TAG, "model": ChangeBody},
        **_ANOTHER,
        **_INVALID,
        **answers(
            s409="The configuration is written over the network (type `…:source`), or too much "
            "would be lost, which `force=true` allows (type `…:loss`).",
        ),
    },
)
async def reload(
    control: Daemon,
    by: Configurer,
    match: IfMatch,
    force: Force = False,
    yes: Yes = None,
    confirm: Confirm = None,
    dry_run: DryRun = False,
) -> Response:
    """Accepts what the daemon's file holds now, as `systemctl reload` does."""
    order = Order(by.who, "reload", force, _insists(yes, force), confirm, match=match, dry=dry_run)
    return _answer(await control.apply(None, order), dry_run)


@router.post(
    "/confirm", responses={**_CHANGED, **_ANOTHER, **answers(s409="Nothing waits for it.")}
)
async def confirm(
    control: Daemon, by: Configurer, match: IfMatch, response: Response, dry_run: DryRun = False
) -> ConfirmedBody:
    """Keeps the configuration that waits for confirmation."""
    digest = await control.confirm(by.who, match=match, dry=dry_run)
    response.headers["ETag"] = f'"{digest}"'
    return ConfirmedBody(confirmed=not dry_run, dry_run=dry_run)


@router.post("/rollback", responses={**_CHANGED, **_ANOTHER, **_INVALID})
async def rollback(
    control: Daemon,
    by: Configurer,
    match: IfMatch,
    response: Response,
    number: Number = None,
    digest: Digest = None,
    dry_run: DryRun = False,
) -> RollbackBody:
    """Goes back to an accepted configuration, by default the one before. What waits for
    confirmation is given up. Drains and weights stay as they are."""
    done = await control.rollback(number or digest, by.who, match=match, dry=dry_run)
    if not dry_run:
        response.headers["ETag"] = f'"{done.digest}"'
    return RollbackBody(
        number=done.number,
        changed=done.changed,
        dry_run=dry_run,
        digest=done.digest,
        summary=list(done.summary),
        file=done.file,
        file_differs=done.file_differs,
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


@router.get("/diff", response_class=PlainTextResponse, responses=_INVALID)
async def diff(control: Daemon, _: Reader, number: Number = None) -> PlainTextResponse:
    """How an accepted configuration, by default the one before, differs from the running one: a
    unified diff without secrets, empty if it does not."""
    return PlainTextResponse(await control.diff(number))


def _from_network(by: Caller) -> bool:
    return by.scope is not Scope.LOCAL


def _insists(yes: bool | None, force: bool) -> bool:
    return force if yes is None else yes


def require_yaml(request: Request) -> None:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in YAML:
        # A browser sends this kind only after it asked, so no other site's form can.
        raise HTTPException(415, "send the configuration's text as application/yaml")


async def body_of(request: Request) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST:
            raise HTTPException(
                413, f"larger than {MOST // 1024 // 1024} MiB; this is not a configuration"
            )
    return bytes(body)


def _answer(outcome: ApplyOutcome, dry_run: bool) -> Response:
    if outcome.problems:
        return answer_problems(outcome.problems)
    told = {
        "changed": outcome.changed,
        "dry_run": dry_run,
        "digest": outcome.digest,
        "summary": outcome.summary,
        "warnings": [asdict(warning) for warning in outcome.warnings],
    }
    # The steps are JSON already, and may be megabytes.
    body = b'%b, "steps": %b}' % (json.dumps(told).encode()[:-1], outcome.steps)
    # Of what runs, not of what would.
    headers = None if dry_run else {"ETag": f'"{outcome.digest}"'}
    return Response(body, 200, headers, "application/json")
