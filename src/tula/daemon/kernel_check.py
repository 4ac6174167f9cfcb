"""Whether the kernel is in sync at the moment when somebody asks; used by who answers.

Comparing a thousand services takes half a second. The data path's revision and the machine's links
and addresses take a thousandth, and all that others usually change moves one of them. So a large
configuration is compared again only when one has moved, or the last comparison is old.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from tula.engine.balancer import Balancer
from tula.engine.kernel_state import KernelState, interface_states, observe_kernel
from tula.model.config import Config
from tula.model.health import BackendName, BackendStatus
from tula.model.host import HostAddress, HostView, Link
from tula.plan.backend_status import Shares

_CHEAP = 0.05
"""Seconds of a comparison that is made every time."""
_OLD = 60.0
"""Seconds after which one is made all the same: no event tells of some changes, such as of a
forwarding entry of a VXLAN device."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What the kernel is compared with; ``revision`` is the data path's after the last change of
    the daemon's own, if it is known."""

    config: Config
    statuses: Mapping[BackendName, BackendStatus]
    shares: Shares
    revision: int | None

    def is_as(self, other: Wanted) -> bool:
        """Whether the same is wanted: by identity, for these are large and published whole."""
        same = self.config is other.config
        return same and all(
            mine is theirs or not (mine or theirs)
            for mine, theirs in ((self.statuses, other.statuses), (self.shares, other.shares))
        )


@dataclass(frozen=True, slots=True)
class _Last:
    wanted: Wanted
    state: KernelState
    network: tuple[Mapping[str, Link], tuple[HostAddress, ...]]
    time: float
    seconds: float


class KernelCheck:
    """Remembers the last comparison. For one thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._last: _Last | None = None

    def look(self, balancer: Balancer, wanted: Wanted) -> KernelState:
        """How the kernel is now. Raises KernelError."""
        last = self._last
        if last is None or last.seconds < _CHEAP or self._clock() - last.time > _OLD:
            return self._compare(balancer, wanted)
        host, revision = balancer.host(), balancer.revision()
        if _network(host) != last.network or not _holds(last, wanted, revision):
            return self._compare(balancer, wanted)
        return replace(last.state, interfaces=interface_states(wanted.config.interfaces, host))

    def _compare(self, balancer: Balancer, wanted: Wanted) -> KernelState:
        start = self._clock()
        state = observe_kernel(balancer, wanted.config, wanted.statuses, wanted.shares)
        now = self._clock()
        host = state.host
        self._last = (
            None if host is None else _Last(wanted, state, _network(host), now, now - start)
        )
        return state


def _holds(last: _Last, wanted: Wanted, revision: int) -> bool:
    """Whether what was found then is so now, by the data path's revision alone."""
    if last.wanted.is_as(wanted) and last.state.revision == revision:
        return True
    # Only the daemon has changed something since, and it compares with what it has left.
    same_config = last.wanted.config is wanted.config
    return last.state.in_sync and same_config and wanted.revision == revision


def _network(host: HostView) -> tuple[Mapping[str, Link], tuple[HostAddress, ...]]:
    return host.links, host.addresses
