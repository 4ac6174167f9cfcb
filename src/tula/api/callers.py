"""Who asks, as routes see it: the scope that each needs, and whose word counts.

On the unix socket everybody is a user of this machine, by the user id that the kernel tells. Only
the daemon's own gateway, by its process id, speaks for others: it has checked their tokens.
"""

from __future__ import annotations

import os
from typing import Annotated, Any, cast

from fastapi import HTTPException, Path, Request, Security
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from tula.api.audit import note_begin
from tula.engine.callers import Caller, GatewayProcesses, Scope, parse_grant
from tula.users import user_name

CALLER, SCOPE, FROM = "Tula-Caller", "Tula-Scope", "Tula-From"
"""The headers by which the gateway names the caller. It strips them from what clients send."""

_BEARER = HTTPBearer(
    scheme_name="token",
    description="A token of `tula token create`. The daemon's unix socket needs none.",
    auto_error=False,
)
_NEEDS = "tula_needs"


def requires(scope: Scope, *, own: bool = False) -> Any:
    """The dependency of a route that takes this scope; it gives the ``Caller``.

    With ``own``, a backend's token is enough where the path's ``name`` is that backend's. Whether
    there is another of that name makes no difference to the answer.
    """
    if own:
        # Not plain functions: those would each go through a pool of threads.
        async def check_own(
            request: Request,
            name: Annotated[str, Path(max_length=63)],
            _: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)],
        ) -> Caller:
            caller = caller_of(request)
            if caller.scope is Scope.BACKEND and caller.backend != name:
                raise HTTPException(
                    403, f"a token for backend {caller.backend} sees that backend and no other"
                )
            return caller

        return _declared(check_own, scope, f"{Scope.BACKEND}:NAME")

    async def check(
        request: Request, _: Annotated[HTTPAuthorizationCredentials | None, Security(_BEARER)]
    ) -> Caller:
        caller = caller_of(request)
        if not caller.scope.covers(scope):
            raise HTTPException(
                403, f"{caller.who} has scope {caller.grant}; this takes {scope} or more"
            )
        await note_begin(request, caller, scope)
        return caller

    return _declared(check, scope)


def _declared(check: Any, scope: Scope, *more: str) -> Any:
    setattr(check, _NEEDS, scope)
    # OpenAPI 3.1: for a bearer token these are names of what it must have.
    return Security(check, scopes=[str(scope), *more])


def needed_scope(check: Any) -> Scope | None:
    """What a dependency that ``requires`` made takes; None for every other function."""
    return cast("Scope | None", getattr(check, _NEEDS, None))


def caller_of(request: Request) -> Caller:
    """Who asks. Raises HTTPException if the gateway does not tell."""
    client = request.client
    if client is None or not client.host.isdecimal():
        return Caller("", Scope.LOCAL)  # not on a socket: within this process
    gateways: GatewayProcesses = request.app.state.gateways
    uid, pid = int(client.host), client.port
    # The user too: a number that is free again belongs to whoever starts a process next.
    if pid not in gateways.pids or uid != os.geteuid():
        return Caller(user_name(uid), Scope.LOCAL)
    name, scope = request.headers.get(CALLER, ""), request.headers.get(SCOPE, "")
    try:
        grant = parse_grant(scope)
    except ValueError:
        grant = None
    if grant is None or not name:
        raise HTTPException(403, "the gateway does not say who asks")
    return Caller(name, grant.scope, request.headers.get(FROM, ""), grant.backend)


def on_behalf(by: Caller, given: str) -> str:
    """Who wants a change: the caller, or whom another balancer names as the one who asked there."""
    return given if by.scope is Scope.PEER and given else by.who


def require_no_peer(by: Caller) -> None:
    """A change of all balancers is not asked on: raises HTTPException."""
    if by.scope is Scope.PEER:
        raise HTTPException(403, "a balancer changes this one alone: it asks the others itself")


Reader = Annotated[Caller, requires(Scope.READ)]
Operator = Annotated[Caller, requires(Scope.OPERATE)]
Configurer = Annotated[Caller, requires(Scope.CONFIGURE)]
Peer = Annotated[Caller, requires(Scope.PEER)]
Anybody = Annotated[Caller, requires(Scope.BACKEND)]
BackendReader = Annotated[Caller, requires(Scope.READ, own=True)]
