"""The operator's overrides of backends, beside the configuration."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from tula.api.callers import Operator, Reader
from tula.api.dependencies import Daemon, Force, PathBackend
from tula.api.errors import ErrorsBody
from tula.engine.backend_view import describe_backend

router = APIRouter(
    prefix="/services/{service}/backends/{backend}",
    tags=["backends"],
    responses={404: {"model": ErrorsBody}, 409: {"model": ErrorsBody}},
)

YEAR = 365 * 86400


class DrainBody(BaseModel):
    """`deadline`: seconds after which remaining connections are ended; null or left out: never."""

    model_config = ConfigDict(extra="forbid")
    deadline: Annotated[float, Field(gt=0, le=YEAR, allow_inf_nan=False)] | None = None


class WeightBody(BaseModel):
    """`weight`: null for the configuration's."""

    model_config = ConfigDict(extra="forbid")
    weight: Annotated[int, Field(ge=0, le=65535, strict=True)] | None


class DoneBody(BaseModel):
    """The backend that was meant."""

    service: str
    backend: str


class InForceBody(BaseModel):
    """An override that is in force: `what` is drain, disable or weight; `end` is a command."""

    what: str
    text: str
    end: str


class BackendBody(BaseModel):
    """One backend; `connections` is null where they are not counted."""

    service: str
    backend: str
    state: str
    reason: str
    weight: int
    effective_weight: int
    connections: int | None
    overrides: list[InForceBody]


def _done(name: PathBackend) -> DoneBody:
    return DoneBody(service=name[0], backend=name[1])


@router.get("")
async def backend(control: Daemon, name: PathBackend, _: Reader) -> BackendBody:
    """How the backend counts, and which overrides of it are in force."""
    return BackendBody.model_validate(describe_backend(await control.backend(name)))


@router.post("/drain")
async def drain(
    control: Daemon,
    name: PathBackend,
    by: Operator,
    body: DrainBody | None = None,
    force: Force = False,
) -> DoneBody:
    """Stop new connections; existing ones go on, until the deadline if one is given."""
    deadline = body.deadline if body is not None else None
    await control.drain(name, deadline, by=by.who, yes=force)
    return _done(name)


@router.post("/undrain")
async def undrain(control: Daemon, name: PathBackend, by: Operator) -> DoneBody:
    """Take drain back."""
    await control.undrain(name, by=by.who)
    return _done(name)


@router.post("/disable")
async def disable(
    control: Daemon, name: PathBackend, by: Operator, force: Force = False
) -> DoneBody:
    """Stop all traffic: existing connections move to other backends, which reset them."""
    await control.disable(name, by=by.who, yes=force)
    return _done(name)


@router.post("/enable")
async def enable(control: Daemon, name: PathBackend, by: Operator) -> DoneBody:
    """Take disable back."""
    await control.enable(name, by=by.who)
    return _done(name)


@router.put("/weight")
async def weight(
    control: Daemon, name: PathBackend, body: WeightBody, by: Operator, force: Force = False
) -> DoneBody:
    """Override the configuration's weight, until it is taken back."""
    await control.set_weight(name, body.weight, by=by.who, yes=force)
    return _done(name)
