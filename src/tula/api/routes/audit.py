"""The audit log."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, cast

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import JSONResponse, Response

from tula.api.callers import Reader
from tula.engine.audit import AuditLog, Result, describe_entry

router = APIRouter(tags=["audit"])

MOST = 1000
"""Entries in an answer: with more, reading would be felt beside what the daemon has to do."""


class AuditEntryBody(BaseModel):
    """A change that was asked for; `time` is in seconds since the epoch, `from` the client's
    address or `local`, `why` the reason for which it was refused or failed."""

    model_config = ConfigDict(populate_by_name=True)
    id: str
    time: float
    who: str
    scope: str
    from_: str = Field(alias="from")
    action: str
    subject: str
    details: dict[str, Any]
    result: Result
    why: str


class AuditBody(BaseModel):
    """The latest changes, the oldest first."""

    entries: list[AuditEntryBody]


@router.get("/audit", response_class=JSONResponse, responses={200: {"model": AuditBody}})
async def audit(
    request: Request, _: Reader, limit: Annotated[int, Query(ge=1, le=MOST)] = 100
) -> Response:
    """Who changed what, when, from where, and what came of it."""
    log = cast("AuditLog | None", request.app.state.audit)
    return Response(await asyncio.to_thread(_read, log, limit), media_type="application/json")


def _read(log: AuditLog | None, limit: int) -> bytes:
    found = [] if log is None else log.read(limit)
    return json.dumps({"entries": [describe_entry(entry) for entry in found]}).encode()
