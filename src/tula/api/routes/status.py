"""How services, backends and the daemon stand."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import JSONResponse

from tula.api.door import Door
from tula.version import __version__

router = APIRouter(tags=["status"])


@router.get("/status")
async def status(control: Door) -> JSONResponse:
    """What `tula status --json` prints."""
    return JSONResponse(await control.status())


@router.get("/health")
async def health() -> dict[str, str]:
    """The daemon answers. How well it does its work is told by status, under `daemon`."""
    return {"status": "ok", "version": __version__}
