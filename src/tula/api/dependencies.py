"""What the routes share: the daemon behind them, and names in a path."""

from __future__ import annotations

import re
from typing import Annotated, cast

from fastapi import Depends, Header, HTTPException, Path, Query, Request

from tula.engine.control import Control, Match, RefusedError
from tula.engine.everywhere import JointControl
from tula.model.health import BackendName

_TAGS = re.compile(r'\s*(W/)?"([!#-~]*)"\s*')


async def control_of(request: Request) -> Control:
    """The daemon behind this app."""
    return cast(Control, request.app.state.control)


async def backend_of(
    service: Annotated[str, Path(max_length=63)], backend: Annotated[str, Path(max_length=63)]
) -> BackendName:
    """The backend that the path names."""
    return service, backend


async def match_of(
    if_match: Annotated[
        str | None,
        Header(
            description="The ETag of the configuration that the change was made for, or several; "
            "`*`: any. With another one running the answer is 412.",
        ),
    ] = None,
) -> Match:
    """The digests of the configurations that ``If-Match`` allows; None: any.

    A weak tag matches nothing (RFC 9110, 13.1.1).
    """
    if if_match is None or if_match.strip() == "*":
        return None
    found = set()
    for each in if_match.split(","):
        tag = _TAGS.fullmatch(each)
        if tag is None:
            raise HTTPException(400, 'If-Match: give an ETag with its quotes, "3f5a…", or *')

        if not tag[1]:
            found.add(tag[2])
    return frozenset(found)


IfMatch = Annotated[Match, Depends(match_of)]
DryRun = Annotated[
    bool,
    Query(description="Check all, say what would change, and change nothing."),
]
Force = Annotated[
    bool, Query(description="Also what takes the last backend that serves, or much more.")
]
By = Annotated[
    str,
    Query(
        max_length=200,
        pattern=r"^[^\x00-\x1f\x7f]*$",
        description="Who asked for it, from another balancer.",
    ),
]
Reachable = Annotated[
    bool, Query(description="Go on without balancers that do not answer; told under `machines`.")
]


async def everywhere_of(request: Request) -> JointControl:
    """The daemon behind this app, as one of several balancers. Raises RefusedError."""
    control = cast(Control, request.app.state.control)
    if control.everywhere is None:
        raise RefusedError(("this daemon is not one of several balancers",))
    return control.everywhere


AllBalancers = Annotated[JointControl, Depends(everywhere_of)]
Daemon = Annotated[Control, Depends(control_of)]
PathBackend = Annotated[BackendName, Depends(backend_of)]
