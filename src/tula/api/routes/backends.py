"""What the operator says of backends, beside the document."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field

from tula.api.door import Door, Named
from tula.api.errors import ErrorsBody

router = APIRouter(
    prefix="/services/{service}/backends/{backend}",
    tags=["backends"],
    responses={404: {"model": ErrorsBody}},
)

YEAR = 365 * 86400


class DrainBody(BaseModel):
    """`deadline`: seconds after which what is left is given up; null or left out: never."""

    model_config = ConfigDict(extra="forbid")
    deadline: Annotated[float, Field(gt=0, le=YEAR, allow_inf_nan=False)] | None = None


class WeightBody(BaseModel):
    """`weight`: null for the document's."""

    model_config = ConfigDict(extra="forbid")
    weight: Annotated[int, Field(ge=0, le=65535, strict=True)] | None


class DoneBody(BaseModel):
    """The backend that was meant."""

    service: str
    backend: str


def _done(name: Named) -> DoneBody:
    return DoneBody(service=name[0], backend=name[1])


@router.post("/drain")
async def drain(control: Door, name: Named, body: DrainBody | None = None) -> DoneBody:
    """No new connections; those that it has go on, until the deadline if one is given."""
    await control.drain(name, body.deadline if body is not None else None)
    return _done(name)


@router.post("/undrain")
async def undrain(control: Door, name: Named) -> DoneBody:
    """Takes drain back."""
    await control.undrain(name)
    return _done(name)


@router.post("/disable")
async def disable(control: Door, name: Named) -> DoneBody:
    """No connections at all: the flows that it has are chosen anew."""
    await control.disable(name)
    return _done(name)


@router.post("/enable")
async def enable(control: Door, name: Named) -> DoneBody:
    """Takes disable back."""
    await control.enable(name)
    return _done(name)


@router.put("/weight")
async def weight(control: Door, name: Named, body: WeightBody) -> DoneBody:
    """Another weight than the document's, until it is taken back."""
    await control.set_weight(name, body.weight)
    return _done(name)
