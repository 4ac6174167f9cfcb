"""What balancers ask each other in a change of all of them (``tula.plan.everywhere``).

Nothing here is asked on: it is about this machine alone.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, HTTPException, Path, Query, Request
from pydantic import BaseModel

from tula.api.callers import Peer
from tula.api.dependencies import AllBalancers, By, DryRun, IfMatch
from tula.api.problems import answers
from tula.api.routes.configuration import body_of, require_yaml, yaml_body
from tula.api.status_bodies import PlacedProblemBody
from tula.engine.control import Match
from tula.engine.everywhere import Change

router = APIRouter(prefix="/everywhere/changes/{change}", tags=["peers"])
Id = Annotated[str, Path(pattern="^[0-9a-f]{16}$")]
Coordinator = Annotated[str, Query(max_length=63, pattern="^[a-z0-9-]+$")]
How = Annotated[str, Query(max_length=200, pattern=r"^[^\x00-\x1f\x7f]*$")]
Seconds = Annotated[float, Query(ge=1, le=86400, allow_inf_nan=False)]
Sha = Annotated[str, Query(pattern="^[0-9a-f]{64}$")]
_TAKEN = answers(
    413,
    415,
    s409="Nothing waits for it here, it would lose much, or the source is another.",
    s412="Another configuration runs than `If-Match` names; `ETag` has its.",
    s422="A parameter is wrong, or the configuration is refused.",
)


class PreparedBody(BaseModel):
    """`before`: the digest of what it replaces."""

    before: str
    changed: bool
    summary: list[str]
    warnings: list[PlacedProblemBody]


class HeldBody(BaseModel):
    """`before`: the digest of what comes back unless it is kept."""

    before: str


class StandingBody(BaseModel):
    """`confirmed`, `aborted`, `open` or `unknown`."""

    change: str
    standing: str


@router.get("")
async def standing(_: Peer, everywhere: AllBalancers, change: Id) -> StandingBody:
    """What this balancer knows of a change, for one whose time to confirm is over."""
    return StandingBody(change=change, standing=str(await everywhere.standing(change)))


@router.post("/prepare", responses=_TAKEN, openapi_extra=yaml_body(required=True))
async def prepare(
    request: Request,
    _: Peer,
    everywhere: AllBalancers,
    change: Id,
    match: IfMatch,
    coordinator: Coordinator,
    how: How,
    seconds: Seconds,
    by: By = "",
    force: bool = False,
    yes: bool = False,
    dry_run: DryRun = False,
) -> PreparedBody:
    """Takes the configuration in the body tentatively."""
    require_yaml(request)
    order = Change(change, coordinator, by, how, force, yes)
    before = None if match is None else _one(match)
    found = await everywhere.prepare(order, await body_of(request), before, seconds, dry=dry_run)
    return PreparedBody(
        before=found.before,
        changed=found.changed,
        summary=list(found.summary),
        warnings=[PlacedProblemBody.model_validate(warning) for warning in found.warnings],
    )


@router.post("/hold", responses=_TAKEN)
async def hold(
    _: Peer, everywhere: AllBalancers, change: Id, coordinator: Coordinator, seconds: Seconds
) -> HeldBody:
    """Waits for another coordinator's decision."""
    return HeldBody(before=await everywhere.hold(change, coordinator, seconds))


@router.post("/confirm", responses=_TAKEN)
async def keep(
    _: Peer,
    everywhere: AllBalancers,
    change: Id,
    coordinator: Coordinator,
    how: How,
    digest: Sha,
    by: By = "",
    force: bool = False,
    yes: bool = False,
) -> StandingBody:
    """Keeps what it has taken."""
    await everywhere.keep(Change(change, coordinator, by, how, force, yes), digest)
    return StandingBody(change=change, standing="confirmed")


@router.post("/adopt", responses={**_TAKEN, **answers(428)}, openapi_extra=yaml_body(required=True))
async def adopt(
    request: Request,
    _: Peer,
    everywhere: AllBalancers,
    change: Id,
    match: IfMatch,
    coordinator: Coordinator,
    how: How,
    by: By = "",
    force: bool = False,
    yes: bool = False,
) -> StandingBody:
    """Accepts what was decided while this daemon was not there."""
    require_yaml(request)
    order = Change(change, coordinator, by, how, force, yes)
    if match is None:
        raise HTTPException(428, "If-Match must say which configuration it is in place of")
    await everywhere.adopt(order, await body_of(request), _one(match))
    return StandingBody(change=change, standing="confirmed")


@router.post("/abort", responses=_TAKEN)
async def take_back(
    _: Peer, everywhere: AllBalancers, change: Id, coordinator: Coordinator, why: How = ""
) -> StandingBody:
    """Takes it back: its coordinator says that it is not decided, and will not be."""
    await everywhere.abort(change, coordinator, why)
    return StandingBody(change=change, standing="aborted")


def _one(match: Match) -> str:
    """The one digest that it is in place of."""
    found = sorted(match or ())
    if len(found) != 1:
        raise HTTPException(400, "If-Match: give one ETag")
    return found[0]
