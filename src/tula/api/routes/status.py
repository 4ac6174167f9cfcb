"""The state of services, backends and the daemon."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.responses import JSONResponse, Response

from tula.api.callers import Reader
from tula.api.dependencies import Daemon
from tula.api.status_bodies import StatusBody
from tula.version import __version__

router = APIRouter(tags=["status"])


class HealthBody(BaseModel):
    """The daemon answers."""

    status: Literal["ok"]
    version: str


@router.get("/status", response_class=JSONResponse, responses={200: {"model": StatusBody}})
async def status(control: Daemon, _: Reader) -> Response:
    """What `tula status --json` prints."""
    return Response(await control.status(), media_type="application/json")


@router.get("/health")
async def health(_: Reader) -> HealthBody:
    """The daemon answers. How well it works is in the status, under `daemon`."""
    return HealthBody(status="ok", version=__version__)
