"""The API as an ASGI app; who may reach it is the server's business."""

from __future__ import annotations

from fastapi import APIRouter, FastAPI

from tula.api.errors import add_handlers
from tula.api.routes import backends, configuration, events, metrics, status, trace
from tula.engine.control import Control
from tula.version import __version__

PREFIX = "/api/v1"


def make_app(control: Control) -> FastAPI:
    """The API of one daemon. A new noun is a new router in this list."""
    app = FastAPI(
        title="Tula",
        version=__version__,
        openapi_url=f"{PREFIX}/openapi.json",
        # Their pages fetch scripts from elsewhere.
        docs_url=None,
        redoc_url=None,
    )
    app.state.control = control
    add_handlers(app)
    api = APIRouter(prefix=PREFIX)
    for noun in (status, events, trace, backends, configuration):
        api.include_router(noun.router)
    app.include_router(api)
    app.include_router(metrics.router)
    return app
