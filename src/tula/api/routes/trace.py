"""Which backend a flow goes to."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, IPvAnyAddress

from tula.api.callers import Reader
from tula.api.dependencies import Daemon
from tula.model.config import Protocol
from tula.model.flow import Flow

router = APIRouter(tags=["trace"])


class TraceBody(BaseModel):
    """Null where nothing serves the flow."""

    service: str | None
    backend: str | None
    reason: str


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
    return TraceBody(service=found.service, backend=found.backend, reason=found.reason)
