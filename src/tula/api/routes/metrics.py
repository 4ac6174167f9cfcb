"""Figures for Prometheus."""

from __future__ import annotations

import asyncio

from fastapi import APIRouter
from starlette.responses import Response

from tula.api.door import Door
from tula.metrics.render import CONTENT_TYPE, render_metrics

router = APIRouter(tags=["metrics"])


@router.get("/metrics")
async def metrics(control: Door) -> Response:
    """Text in the format of Prometheus."""
    snapshot = await control.metrics()
    # In a thread: with many backends it takes long enough to hold probes up.
    text = await asyncio.to_thread(render_metrics, snapshot)
    return Response(text, headers={"Content-Type": CONTENT_TYPE})
