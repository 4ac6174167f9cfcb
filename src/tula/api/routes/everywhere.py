"""Changes on all balancers: this one asks the others, and tells how each stands."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, Field

from tula.api.callers import Configurer, Operator, require_no_peer
from tula.api.dependencies import (
    AllBalancers,
    DryRun,
    Force,
    IfMatch,
    PathBackend,
    Reachable,
)
from tula.api.problems import ErrorBody, answers
from tula.api.routes.backends import DoneBody, DrainBody, WeightBody
from tula.api.routes.configuration import (
    Confirm,
    Digest,
    Number,
    Yes,
    body_of,
    require_yaml,
    yaml_body,
)
from tula.api.status_bodies import PlacedProblemBody
from tula.engine.callers import Caller, Scope
from tula.engine.everywhere import Asked, JointOutcome, Override
from tula.model.health import BackendName

router = APIRouter(prefix="/everywhere", tags=["all balancers"])
_WRONG = answers(
    s404="A balancer has no such backend.",
    s409="A balancer does not answer (type `…:unreachable`), runs another configuration by now "
    "(`…:another-configuration`), is not given it by the network (`…:source`), or would lose much "
    "(`…:loss`, done with `force=true`). No balancer keeps a change then.",
    s412="Another configuration runs here than `If-Match` names; `ETag` has its.",
    s422="A balancer refuses it, or a parameter is wrong: no balancer keeps it.",
    s428="New content from the network needs `If-Match`.",
)


class MachineBody(BaseModel):
    """How a balancer stands. `result`: `done`, `would` (a dry run), `waits` (for confirmation),
    `pending` (it gets it when it is back), `left` (another configuration was accepted there
    meanwhile, and stays), `left-out` (it does not answer, with `reachable`), `failed`,
    `unreachable`, `refused`, `taken-back`."""

    machine: str
    result: str
    errors: list[ErrorBody]
    summary: list[str]
    warnings: list[PlacedProblemBody]
    backend: DoneBody | None


class EverywhereBody(BaseModel):
    """What came of it, in the order of `load_balancers`. `done`: nothing is left to be done.
    `change` names it, `digest` is that of the configuration; `confirm`: seconds to confirm in."""

    change: str
    digest: str
    dry_run: bool
    done: bool
    confirm: float | None = Field(default=None)
    machines: list[MachineBody]


def _answer(outcome: JointOutcome) -> EverywhereBody:
    machines = [
        MachineBody(
            machine=told.machine,
            result=str(told.result),
            errors=[ErrorBody.model_validate(error) for error in told.errors],
            summary=list(told.summary),
            warnings=[PlacedProblemBody.model_validate(warning) for warning in told.warnings],
            backend=None if told.override is None else DoneBody.model_validate(told.override),
        )
        for told in outcome.machines
    ]
    return EverywhereBody(
        change=outcome.change,
        digest=outcome.digest,
        dry_run=outcome.dry,
        done=outcome.done,
        confirm=outcome.confirm,
        machines=machines,
    )


@router.post(
    "/apply", responses=_WRONG | answers(413, 415), openapi_extra=yaml_body(required=False)
)
async def apply_everywhere(
    request: Request,
    by: Configurer,
    everywhere: AllBalancers,
    match: IfMatch,
    force: Force = False,
    yes: Yes = None,
    confirm: Confirm = None,
    reachable: Reachable = False,
    dry_run: DryRun = False,
) -> EverywhereBody:
    """Has all balancers accept the configuration in the body, or that of this daemon's file, or
    none of them. `If-Match` is about this one's; what the others run is not overwritten if it
    changes meanwhile. With `confirm`, all go back unless `/everywhere/confirm` is asked for."""
    require_no_peer(by)
    text = await body_of(request)
    network = by.scope is not Scope.LOCAL
    if text:
        require_yaml(request)
        if network and "if-match" not in request.headers:
            raise HTTPException(428, "new content needs If-Match, or * to replace whichever runs")
    asked = Asked(
        by.who,
        force=force,
        yes=force if yes is None else yes,
        confirm=confirm,
        dry=dry_run,
        reachable=reachable,
        network=network,
        match=match,
    )
    return _answer(await everywhere.apply(text or None, asked))


@router.post("/confirm", responses=_WRONG)
async def confirm_everywhere(
    by: Configurer, everywhere: AllBalancers, dry_run: DryRun = False
) -> EverywhereBody:
    """Keeps on all balancers the configuration that waits on all of them."""
    require_no_peer(by)
    return _answer(await everywhere.confirm(by.who, dry=dry_run))


@router.post("/rollback", responses=_WRONG)
async def rollback_everywhere(
    by: Configurer,
    everywhere: AllBalancers,
    match: IfMatch,
    number: Number = None,
    digest: Digest = None,
    reachable: Reachable = False,
    dry_run: DryRun = False,
) -> EverywhereBody:
    """Takes back what waits on all balancers; else goes back on all to a configuration that was
    accepted here, by its digest, its number here, or the one before. Who lacks it is sent it."""
    require_no_peer(by)
    asked = Asked(by.who, dry=dry_run, reachable=reachable, match=match)
    return _answer(await everywhere.rollback(number or digest, asked))


async def _override(
    everywhere: AllBalancers,
    verb: str,
    name: BackendName,
    by: Caller,
    body: Mapping[str, Any] | None,
    given: tuple[bool, bool, bool],
) -> EverywhereBody:
    """``given`` is force, reachable, dry_run."""
    require_no_peer(by)
    force, reachable, dry = given
    order = Override(verb, name, body, by.who, force)
    return _answer(await everywhere.override(order, dry=dry, reachable=reachable))


_BACKEND = "/services/{service}/backends/{backend}"


@router.post(f"{_BACKEND}/drain", responses=_WRONG)
async def drain_everywhere(
    by: Operator,
    everywhere: AllBalancers,
    name: PathBackend,
    body: DrainBody | None = None,
    force: Force = False,
    reachable: Reachable = False,
    dry_run: DryRun = False,
) -> EverywhereBody:
    """Drains a backend on all balancers; all are asked first."""
    given = (body or DrainBody()).model_dump()
    if not given["release"]:
        del given["release"]  # a balancer of an older version does not know it
    return await _override(everywhere, "drain", name, by, given, (force, reachable, dry_run))


@router.post(f"{_BACKEND}/undrain", responses=_WRONG)
async def undrain_everywhere(
    by: Operator,
    everywhere: AllBalancers,
    name: PathBackend,
    reachable: Reachable = False,
    dry_run: DryRun = False,
) -> EverywhereBody:
    """Takes drain back on all balancers."""
    return await _override(everywhere, "undrain", name, by, None, (False, reachable, dry_run))


@router.post(f"{_BACKEND}/disable", responses=_WRONG)
async def disable_everywhere(
    by: Operator,
    everywhere: AllBalancers,
    name: PathBackend,
    force: Force = False,
    reachable: Reachable = False,
    dry_run: DryRun = False,
) -> EverywhereBody:
    """Disables a backend on all balancers; all are asked first."""
    return await _override(everywhere, "disable", name, by, None, (force, reachable, dry_run))


@router.post(f"{_BACKEND}/enable", responses=_WRONG)
async def enable_everywhere(
    by: Operator,
    everywhere: AllBalancers,
    name: PathBackend,
    reachable: Reachable = False,
    dry_run: DryRun = False,
) -> EverywhereBody:
    """Takes disable back on all balancers."""
    return await _override(everywhere, "enable", name, by, None, (False, reachable, dry_run))


@router.put(f"{_BACKEND}/weight", responses=_WRONG)
async def weight_everywhere(
    by: Operator,
    everywhere: AllBalancers,
    name: PathBackend,
    body: WeightBody,
    force: Force = False,
    reachable: Reachable = False,
    dry_run: DryRun = False,
) -> EverywhereBody:
    """Overrides a backend's weight on all balancers; all are asked first."""
    given = body.model_dump()
    return await _override(everywhere, "weight", name, by, given, (force, reachable, dry_run))
