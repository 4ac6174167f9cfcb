"""Handing the VIPs over to the other balancers, for maintenance."""

from __future__ import annotations

from fastapi import APIRouter
from pydantic import BaseModel

from tula.api.callers import Operator
from tula.api.dependencies import Daemon, DryRun
from tula.engine.control import Stood

router = APIRouter(tags=["balancers"])


class StoodBody(BaseModel):
    """`standby` is what the operator wants, `changed` whether that is news. `role` is `active` or
    `standby`, as it was at that moment: an engine changes it a little later (`GET /status` has
    it). `alive` are the balancers that are heard."""

    standby: bool
    changed: bool
    role: str | None
    alive: list[str]
    dry_run: bool


def _answer(done: Stood, dry_run: bool) -> StoodBody:
    return StoodBody(
        standby=done.standby,
        changed=done.changed,
        role=done.role,
        alive=list(done.alive),
        dry_run=dry_run,
    )


@router.post("/standby")
async def standby(control: Daemon, by: Operator, dry_run: DryRun = False) -> StoodBody:
    """Hands the VIPs over to other balancers, and takes them only if no other will. Nothing is
    lost, and it lasts over a restart."""
    return _answer(await control.stand_by(True, by=by.who, dry=dry_run), dry_run)


@router.post("/active")
async def active(control: Daemon, by: Operator, dry_run: DryRun = False) -> StoodBody:
    """Takes standby back. That alone moves nothing: the balancer that has the VIPs keeps them."""
    return _answer(await control.stand_by(False, by=by.who, dry=dry_run), dry_run)
