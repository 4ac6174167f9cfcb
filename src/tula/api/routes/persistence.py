"""Persistent clients: which backend has them, and how they are forgotten."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, IPvAnyAddress
from starlette.responses import JSONResponse, Response

from tula.api.callers import Operator, Reader
from tula.api.dependencies import Daemon, DryRun, Force
from tula.api.problems import answers
from tula.engine.persistent_clients import MOST, USUAL, NoPersistenceError, describe_cleared

router = APIRouter(
    prefix="/persistence",
    tags=["persistence"],
    responses=answers(s404="No such service in the running configuration, or no persistence."),
)

_LOSS = answers(s409="All clients are meant: with `force=true` it is done (type `…:loss`).")
Service = Annotated[
    str | None, Query(max_length=63, description="One that is in the scope; left out: all.")
]
Client = Annotated[IPvAnyAddress | None, Query(description="An address; left out: all.")]


class ClientBody(BaseModel):
    """One persistent client, and where its new connections go. `scope` is a service's name, a VIP
    or the scope's name, `services` those that share it, `client` a network. `backend` is a name
    (as the first of the services has it) and `address` the backend's key; null for one that is no
    backend any more. `seconds` are left, null where the kernel does not tell."""

    scope: str
    services: list[str]
    client: str
    backend: str | None
    address: str | None
    seconds: float | None


class ClientsBody(BaseModel):
    """Persistent clients. `complete`: there are no others; else some scope has more than were
    asked for."""

    clients: list[ClientBody]
    complete: bool


class ClearedBody(BaseModel):
    """What was forgotten, or with `dry_run` would be; `entries` is null where the kernel does not
    tell how many there were."""

    client: str | None
    services: list[str]
    entries: int | None
    dry_run: bool


@router.get("", response_class=JSONResponse, responses={200: {"model": ClientsBody}})
async def persistence(
    control: Daemon,
    _: Reader,
    service: Service = None,
    client: Client = None,
    limit: Annotated[
        int, Query(ge=1, le=MOST, description="Clients of each scope, at most.")
    ] = USUAL,
) -> Response:
    """The clients that services remember, with their backends."""
    try:
        found = await control.clients.list(service, client, limit)
    except NoPersistenceError as error:
        raise HTTPException(404, str(error)) from None
    return Response(found, media_type="application/json")


@router.delete("", responses=_LOSS)
async def clear_persistence(
    control: Daemon,
    _: Operator,
    service: Service = None,
    client: Client = None,
    force: Force = False,
    dry_run: DryRun = False,
) -> ClearedBody:
    """Forget a client, or all clients. New connections choose a backend again; those that exist go
    on."""
    try:
        done = await control.clients.forget(service, client, yes=force, dry=dry_run)
    except NoPersistenceError as error:
        raise HTTPException(404, str(error)) from None
    return ClearedBody.model_validate(describe_cleared(done, client, dry=dry_run))
