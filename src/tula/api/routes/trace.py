"""Which backend a flow goes to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, IPvAnyAddress

from tula.api.callers import Reader
from tula.api.dependencies import Daemon
from tula.model.config import Protocol
from tula.model.flow import Flow
from tula.plan.trace import describe_trace

router = APIRouter(tags=["trace"])


class TracedClientBody(BaseModel):
    """What persistence holds for the client: a network, the backend (null where the service has
    none of that address), and the seconds that are left, null where the kernel does not tell.
    `kept`: new connections go there; else another backend is chosen."""

    client: str
    backend: str | None
    seconds: float | None
    kept: bool


class TraceBody(BaseModel):
    """Null where nothing serves the flow. `persistence` is null where nothing is held."""

    service: str | None
    backend: str | None
    reason: str
    persistence: TracedClientBody | None


Port = Annotated[int, Query(ge=0, le=65535)]


@router.get("/trace")
async def trace(
    control: Daemon,
    _: Reader,
    vip: IPvAnyAddress,
    port: Port,
    client: IPvAnyAddress,
    client_port: Port,
    protocol: Protocol = Protocol.TCP,
    fragment: Annotated[int | None, Query(ge=0, le=0xFFFFFFFF)] = None,
) -> TraceBody:
    """Where the flow goes, by the kernel's tables or the running configuration, and why.

    `fragment` is a datagram's identification, to ask about its later fragments.
    """
    if vip.version != client.version:
        raise HTTPException(422, f"{vip} and {client} are of different IP versions")
    if fragment is not None and vip.version == 4 and fragment > 0xFFFF:
        raise HTTPException(422, "fragment: an IPv4 identification is 0 to 65535")
    found = await control.trace(Flow(client, client_port, vip, port, protocol), fragment)
    return TraceBody.model_validate(describe_trace(found))
