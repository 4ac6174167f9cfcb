"""What the routes share: the daemon behind them, and names in a path."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import Depends, Path, Query, Request

from tula.engine.control import Control
from tula.model.health import BackendName
from tula.users import user_name


def control_of(request: Request) -> Control:
    """The daemon behind this app."""
    return cast(Control, request.app.state.control)


def backend_of(
    service: Annotated[str, Path(max_length=63)], backend: Annotated[str, Path(max_length=63)]
) -> BackendName:
    """The backend that the path names."""
    return service, backend


def caller_of(request: Request) -> str:
    """The user at the other end of the socket, by name where it has one."""
    if request.client is None or not request.client.host.isdecimal():
        return ""
    return user_name(int(request.client.host))


Force = Annotated[
    bool, Query(description="Also what takes the last backend that serves, or much more.")
]
Daemon = Annotated[Control, Depends(control_of)]
Caller = Annotated[str, Depends(caller_of)]
PathBackend = Annotated[BackendName, Depends(backend_of)]
