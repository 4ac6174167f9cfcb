"""What a backend sees of itself."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from tula.api.callers import Anybody, BackendReader
from tula.api.dependencies import Daemon
from tula.api.problems import answers
from tula.api.routes.backends import InForceBody
from tula.api.status_bodies import TunnelBody

router = APIRouter(prefix="/backends", tags=["backends"])
caller_router = APIRouter(tags=["caller"])


class PlaceBody(BaseModel):
    """One service in which it serves. `weight` is the configuration's, `effective_weight` what it
    counts now; `connections` is null where they are not counted, `tunnel` without one."""

    service: str
    vips: list[str]
    protocols: list[str]
    ports: list[str]
    forwarding: str
    addresses: list[str]
    state: str
    reason: str
    weight: int
    effective_weight: int
    connections: int | None
    connections_estimated: bool
    overrides: list[InForceBody]
    tunnel: TunnelBody | None


class OwnBody(BaseModel):
    """The backends of one name, in all services."""

    name: str
    services: list[PlaceBody]


@router.get(
    "/{name}",
    response_class=JSONResponse,
    responses={
        200: {"model": OwnBody},
        **answers(s404="The running configuration has no backend of this name."),
    },
)
async def own(control: Daemon, name: str, _: BackendReader) -> Response:
    """The backends of this name, in all services: where they serve, how they count, and what the
    other ends of their tunnels must know. A token of scope `backend:NAME` is enough for NAME."""
    found = await control.own_view(name)
    if found is None:
        raise HTTPException(404, f"no backend {name} in the running configuration")
    return Response(found, media_type="application/json")


class CallerBody(BaseModel):
    """Who asks: a token's name, or a user's, and what it may."""

    name: str
    scope: str


@caller_router.get("/caller")
async def caller(by: Anybody) -> CallerBody:
    """Whom this token is for, and its scope: `backend:NAME` tells a backend which one it is."""
    return CallerBody(name=by.name, scope=str(by.grant))


@router.get(
    "/{name}/configuration",
    response_class=Response,
    responses={
        200: {
            "description": "A configuration.",
            # YAML is checked as what it says, which is a mapping.
            "content": {"application/yaml": {"schema": {"type": "object"}}},
        },
        **answers(s404="The running configuration has no backend of this name."),
    },
)
async def own_configuration(control: Daemon, name: str, _: BackendReader) -> Response:
    """What of the running configuration concerns the backend of this name: what
    `tula backend join --server` joins by. Without other backends, health checks and secrets."""
    found = await control.excerpt(name)
    if found is None:
        raise HTTPException(404, f"no backend {name} in the running configuration")
    return Response(found, 200, {"Cache-Control": "no-store"}, "application/yaml")
