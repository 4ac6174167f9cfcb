"""Metrics for Prometheus."""

from __future__ import annotations

from fastapi import APIRouter
from starlette.responses import PlainTextResponse, Response

from tula.api.callers import Reader
from tula.api.dependencies import Daemon
from tula.metrics.render import CONTENT_TYPE

router = APIRouter(tags=["metrics"])


@router.get("/metrics", response_class=PlainTextResponse)
async def metrics(control: Daemon, _: Reader) -> Response:
    """Text in the format of Prometheus."""
    return Response(await control.metrics(), headers={"Content-Type": CONTENT_TYPE})
