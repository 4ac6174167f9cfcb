"""The API as an ASGI app; who may reach it is the server's business."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.responses import JSONResponse

from tula.api.audit import AuditMiddleware
from tula.api.callers import Reader
from tula.api.document import make_document
from tula.api.errors import add_handlers
from tula.api.routes import audit as audit_log
from tula.api.routes import (
    backends,
    changes,
    configuration,
    events,
    everywhere,
    metrics,
    notify,
    own,
    peer,
    persistence,
    standby,
    status,
    trace,
)
from tula.api.streams import Streams
from tula.engine.audit import AuditLog
from tula.engine.callers import GatewayProcesses
from tula.engine.control import Control
from tula.version import __version__

PREFIX = "/api/v1"


class _App(FastAPI):
    def openapi(self) -> dict[str, Any]:
        """The OpenAPI document."""
        if self.openapi_schema is None:
            self.openapi_schema = make_document(self)
        return self.openapi_schema


def make_app(
    control: Control, gateways: GatewayProcesses | None = None, audit: AuditLog | None = None
) -> FastAPI:
    """The API of one daemon. A new noun is a new router in this list.

    ``gateways`` are the processes that are believed about who asks; ``audit`` is told of every
    change that is asked for.
    """
    app = _App(
        title="Tula",
        version=__version__,
        # It would redirect to the name that the gateway has for the daemon.
        redirect_slashes=False,
        openapi_url=None,  # below, since it takes a scope too
        # Their pages fetch scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.control = control
    app.state.gateways = gateways or GatewayProcesses()
    app.state.streams = Streams()
    app.state.audit = audit
    add_handlers(app)
    if audit is not None:
        app.add_middleware(AuditMiddleware, log=audit)
    api = APIRouter(prefix=PREFIX)
    for noun in (
        status,
        events,
        audit_log,
        trace,
        backends,
        own,
        configuration,
        peer,
        persistence,
        standby,
        notify,
        everywhere,
        changes,
    ):
        api.include_router(noun.router)
    api.include_router(own.caller_router)

    @api.get("/openapi.json", include_in_schema=False)
    async def openapi(_: Reader) -> JSONResponse:
        return JSONResponse(app.openapi())

    app.include_router(api)
    app.include_router(metrics.router)
    return app
