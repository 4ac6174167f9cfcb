"""The other balancers, as far as notifications ask: from what the peer watch knows of them."""

from __future__ import annotations

from collections.abc import Callable

from tula.daemon.notify.dedup import Other
from tula.daemon.peer_state import PeerState

Standing = tuple[str, tuple[Other, ...]]


def others_by(
    standing: Callable[[], tuple[str, tuple[PeerState, ...]]],
) -> Callable[[], Standing]:
    """The own name, and the others that there is a token for."""

    def look() -> Standing:
        own, states = standing()
        return own, tuple(_other(state) for state in states if state.added)

    return look


def _other(state: PeerState) -> Other:
    view, (configuration, _) = state.view, state.same
    asked = state.since is not None
    return Other(
        name=state.name,
        # Just heard, and not compared yet.
        known=asked and not (state.alive and configuration is None),
        alive=state.alive,
        equal=configuration is True,
        ahead=state.clock or 0.0,
        told={} if view is None else view.notified.receivers,
    )
