"""The BGP sessions of this machine, as ``tula status`` shows them, and metrics."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tula.model.bgp import BgpSessionState
from tula.model.config import Config


def router_sessions(
    config: Config, sessions: Iterable[BgpSessionState]
) -> tuple[BgpSessionState, ...]:
    """One for each router of the configuration, in its order; ``state`` is ``Down`` for one that
    the speaker does not know, or when there is no speaker."""
    bgp = config.high_availability.bgp
    if bgp is None:
        return ()
    found = {session.router: session for session in sessions}
    routers = (router for router, _ in bgp.routers)
    return tuple(found.get(router, BgpSessionState(router, "Down")) for router in routers)


def describe_bgp(config: Config, sessions: Iterable[BgpSessionState]) -> list[dict[str, Any]]:
    """Those for JSON."""
    bgp = config.high_availability.bgp
    numbers = dict(bgp.routers) if bgp is not None else {}
    return [
        {
            "router": str(session.router),
            "as": numbers[session.router],
            "state": session.state,
            "since": session.since,
            "routes": session.routes,
            "versions": list(session.versions),
            "bfd": session.bfd,
            "error": session.error,
        }
        for session in router_sessions(config, sessions)
    ]
