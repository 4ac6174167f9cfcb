"""What the routes share: the daemon behind them, and names in a path."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Path, Query, Request

from tula.engine.control import Control
from tula.model.health import BackendName


def control_of(request: Request) -> Control:
    """The daemon behind this app."""
    return cast(Control, request.app.state.control)


def backend_of(
    service: Annotated[str, Path(max_length=63)], backend: Annotated[str, Path(max_length=63)]
) -> BackendName:
    """The backend that the path names."""
    return service, backend


Force = Annotated[
    bool, Query(description="Also what takes the last backend that serves, or much more.")
]
Daemon = Annotated[Control, Depends(control_of)]
PathBackend = Annotated[BackendName, Depends(backend_of)]
