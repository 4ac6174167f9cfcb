"""The operator's overrides of backends, beside the configuration."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from tula.api.callers import Operator, Reader, on_behalf
from tula.api.dependencies import By, Daemon, DryRun, Force, PathBackend
from tula.api.problems import answers
from tula.engine.backend_view import describe_backend
from tula.engine.control import Overridden

router = APIRouter(
    prefix="/services/{service}/backends/{backend}",
    tags=["backends"],
    responses=answers(s404="The running configuration has no such backend; `near`: names like it."),
)
_LOSS = answers(
    s409="It takes the last backend that serves: with `force=true` it is done (type `…:loss`)."
)

YEAR = 365 * 86400


class DrainBody(BaseModel):
    """`deadline`: seconds after which remaining connections are ended; null or left out: never.
    `release`: its persistent clients' new connections go elsewhere, whatever
    `persistence: {drain}` says."""

    model_config = ConfigDict(extra="forbid")
    deadline: Annotated[float, Field(gt=0, le=YEAR, allow_inf_nan=False)] | None = None
    release: bool = False


class WeightBody(BaseModel):
    """`weight`: null for the configuration's."""

    model_config = ConfigDict(extra="forbid")
    weight: Annotated[int, Field(ge=0, le=65535, strict=True)] | None


class StandBody(BaseModel):
    """How a backend counts."""

    state: str
    weight: int
    effective_weight: int


class DoneBody(BaseModel):
    """The backend that was meant, before and after; of a dry run, what would be."""

    service: str
    backend: str
    dry_run: bool
    before: StandBody
    after: StandBody


class InForceBody(BaseModel):
    """An override that is in force: `what` is drain, disable or weight; `end` is a command."""

    what: str
    text: str
    end: str


class BackendBody(BaseModel):
    """One backend; `connections` is null where they are not counted, and by a sample (estimated)
    where there are too many to count each."""

    service: str
    backend: str
    state: str
    reason: str
    weight: int
    effective_weight: int
    connections: int | None
    keeps_connections: bool
    connections_estimated: bool
    overrides: list[InForceBody]
    keeps_clients: bool = Field(
        description="It drains, and gets its persistent clients' new connections."
    )


def _done(name: PathBackend, done: Overridden, dry_run: bool) -> DoneBody:
    before, after = (
        StandBody(state=v.state, weight=v.weight, effective_weight=v.effective_weight)
        for v in (done.before, done.after)
    )
    return DoneBody(service=name[0], backend=name[1], dry_run=dry_run, before=before, after=after)


@router.get("")
async def backend(control: Daemon, name: PathBackend, _: Reader) -> BackendBody:
    """How the backend counts, and which overrides of it are in force."""
    return BackendBody.model_validate(describe_backend(await control.backend(name)))


@router.post("/drain", responses=_LOSS)
async def drain(
    control: Daemon,
    name: PathBackend,
    by: Operator,
    body: DrainBody | None = None,
    force: Force = False,
    dry_run: DryRun = False,
    asked_by: By = "",
) -> DoneBody:
    """Stop new connections; existing ones go on, until the deadline if one is given."""
    given, who = body or DrainBody(), on_behalf(by, asked_by)
    done = await control.drain(
        name, given.deadline, release=given.release, by=who, yes=force, dry=dry_run
    )
    return _done(name, done, dry_run)


@router.post("/undrain")
async def undrain(
    control: Daemon, name: PathBackend, by: Operator, dry_run: DryRun = False, asked_by: By = ""
) -> DoneBody:
    """Take drain back."""
    return _done(
        name, await control.undrain(name, by=on_behalf(by, asked_by), dry=dry_run), dry_run
    )


@router.post("/disable", responses=_LOSS)
async def disable(
    control: Daemon,
    name: PathBackend,
    by: Operator,
    force: Force = False,
    dry_run: DryRun = False,
    asked_by: By = "",
) -> DoneBody:
    """Stop all traffic: existing connections move to other backends, which reset them."""
    return _done(
        name,
        await control.disable(name, by=on_behalf(by, asked_by), yes=force, dry=dry_run),
        dry_run,
    )


@router.post("/enable")
async def enable(
    control: Daemon, name: PathBackend, by: Operator, dry_run: DryRun = False, asked_by: By = ""
) -> DoneBody:
    """Take disable back."""
    who = on_behalf(by, asked_by)
    done = await control.enable(name, by=who, dry=dry_run)
    return _done(name, done, dry_run)


@router.put("/weight", responses=_LOSS)
async def weight(
    control: Daemon,
    name: PathBackend,
    body: WeightBody,
    by: Operator,
    force: Force = False,
    dry_run: DryRun = False,
    asked_by: By = "",
) -> DoneBody:
    """Override the configuration's weight, until it is taken back."""
    done = await control.set_weight(
        name, body.weight, by=on_behalf(by, asked_by), yes=force, dry=dry_run
    )
    return _done(name, done, dry_run)
