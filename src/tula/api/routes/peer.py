"""What balancers of one configuration ask each other."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, Field
from starlette.responses import JSONResponse, Response

from tula.api.callers import requires
from tula.api.dependencies import Daemon
from tula.api.status_bodies import FlowCountsBody
from tula.engine.callers import Caller, Scope

router = APIRouter(prefix="/peer", tags=["peers"])
AnotherBalancer = Annotated[Caller, requires(Scope.PEER)]


class PeerConfigurationBody(BaseModel):
    """The running configuration. `digest` is that of its text; `shared_digest` that of what must
    be equal on all balancers: without comments, `api` and `metrics`. `tentative`: it waits for
    confirmation."""

    digest: str | None
    shared_digest: str | None
    tentative: bool


class HeardBody(BaseModel):
    """A balancer that this one asks, and whether it answers."""

    name: str
    alive: bool


class PeerOverrideBody(BaseModel):
    """What the operator changed of a backend; `weight` null: the configuration's."""

    drain: bool
    disable: bool
    weight: int | None


class DetailsBody(BaseModel):
    """How services and backends stand: how many services there are and how many are served here,
    the `states` of the backends that are not up, and the overrides, by `service/backend`."""

    services: int
    served: int
    backends: int
    states: dict[str, str]
    overrides: dict[str, PeerOverrideBody]


class NotifiedBody(BaseModel):
    """What it has told the receivers of notifications, by digests of these: `settled` is the time
    up to which all is told, `sent` when the last event of a kind and a subject was that it told,
    by digests of both."""

    digest: str
    settled: dict[str, float]
    sent: dict[str, dict[str, float]] | None


class PeerBody(BaseModel):
    """A balancer as others must know it. `start` is another one at each start of its daemon,
    `boot` at each of its machine; `time` is its clock, in seconds since the epoch. `ready`: its
    tables hold the configuration. `details` is null for who has them."""

    name: str | None = Field(description="Its name in `load_balancers`; null: it is none of them.")
    version: str
    schema_: int | None = Field(alias="schema", description="That of its tables.")
    start: str
    boot: str
    time: float | None
    ready: bool
    configuration: PeerConfigurationBody
    overrides_digest: str
    role: str | None
    standby: bool
    flows: FlowCountsBody
    peers: list[HeardBody]
    details_digest: str
    details: DetailsBody | None
    notified: NotifiedBody


@router.get("", response_class=JSONResponse, responses={200: {"model": PeerBody}})
async def peer(
    control: Daemon,
    _: AnotherBalancer,
    known: Annotated[
        str,
        Query(
            max_length=64,
            description="The `details_digest` of an earlier answer: the same details are left out.",
        ),
    ] = "",
    notified: Annotated[
        str,
        Query(
            max_length=64,
            description="The `notified.digest` of an earlier answer: the same `sent` is left out.",
        ),
    ] = "",
) -> Response:
    """What another balancer must know of this one; asked about once a second."""
    found = await control.peer_view(known, notified)
    return Response(found, media_type="application/json")


class SharedBody(BaseModel):
    """Flows are being told."""

    shared: bool


@router.post("/flows")
async def share_flows(control: Daemon, _: AnotherBalancer) -> SharedBody:
    """Has this balancer tell the others its flows again, each with its next packet: what one asks
    for that has just started. At most once a second."""
    await control.share_flows()
    return SharedBody(shared=True)
