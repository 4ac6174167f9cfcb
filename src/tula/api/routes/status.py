"""The state of services, backends and the daemon."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import Response

from tula.api.callers import Reader
from tula.api.dependencies import Daemon
from tula.version import __version__

router = APIRouter(tags=["status"])


@router.get("/status")
async def status(control: Daemon, _: Reader) -> Response:
    """What `tula status --json` prints."""
    return Response(await control.status(), media_type="application/json")


@router.get("/health")
async def health(_: Reader) -> dict[str, str]:
    """The daemon answers. How well it works is in the status, under `daemon`."""
    return {"status": "ok", "version": __version__}
