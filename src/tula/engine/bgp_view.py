"""The BGP sessions of this machine, as ``tula status`` shows them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tula.model.bgp import BgpSessionState
from tula.model.config import Config


def describe_bgp(config: Config, sessions: Iterable[BgpSessionState]) -> list[dict[str, Any]]:
    """One for each router of the configuration, in its order; ``state`` is ``Down`` for one that
    the speaker does not know, or when there is no speaker."""
    bgp = config.high_availability.bgp
    if bgp is None:
        return []
    found = {session.router: session for session in sessions}
    return [
        {
            "router": str(router),
            "as": number,
            "state": session.state,
            "since": session.since,
            "routes": session.routes,
            "versions": list(session.versions),
            "bfd": session.bfd,
            "error": session.error,
        }
        for router, number in bgp.routers
        for session in (found.get(router, BgpSessionState(router, "Down")),)
    ]
