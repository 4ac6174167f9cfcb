"""Whether the kernel is what the configuration wants, and what else keeps packets from it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from tula.engine.balancer import Balancer
from tula.engine.differences import FORWARDS_NOTHING, describe_differences
from tula.model.config import Config
from tula.model.errors import KernelError
from tula.model.health import BackendName, BackendStatus
from tula.model.host import HostView
from tula.plan.backend_status import NO_SHARES, Shares


@dataclass(frozen=True, slots=True)
class KernelState:
    """One look at the kernel. ``differences`` are a line each, and none when it is in sync.

    ``forwards``: there is a data path at all. ``compared`` is when all of it was read, in seconds
    since the epoch. ``interfaces`` are those where clients' packets arrive, and how they are:
    ``up``, ``down``, ``no carrier`` or ``missing``. ``problems`` keep parts of the configuration
    from the kernel, a line each.
    """

    differences: tuple[str, ...] = ()
    forwards: bool = True
    compared: float | None = None
    interfaces: Mapping[str, str] | None = None
    problems: tuple[str, ...] = ()
    host: HostView | None = None
    revision: int | None = None
    """the data path's, when it was read"""

    @property
    def in_sync(self) -> bool:
        """Whether nothing differs."""
        return not self.differences


def observe_kernel(
    balancer: Balancer,
    config: Config,
    statuses: Mapping[BackendName, BackendStatus],
    shares: Shares = NO_SHARES,
    wall: Callable[[], float] = time.time,
) -> KernelState:
    """Reads and compares all of it; what cannot be read is a difference, too."""
    now = wall()
    try:
        found = balancer.inspect(config, statuses, shares)
    except KernelError as error:
        return KernelState((str(error),), compared=now)
    differences = describe_differences(found.change.steps()) if found.change else ()
    return KernelState(
        differences,
        forwards=not FORWARDS_NOTHING.intersection(differences),
        compared=now,
        interfaces=interface_states(config.interfaces, found.host),
        problems=tuple(f"{problem.dotted}: {problem.message}" for problem in found.problems),
        host=found.host,
        revision=found.have.revision,
    )


def interface_states(names: Iterable[str], host: HostView) -> dict[str, str]:
    """How these interfaces are, in a word or two."""
    found: dict[str, str] = {}
    for name in names:
        link = host.links.get(name)
        if link is None:
            found[name] = "missing"
        elif not link.up:
            found[name] = "down"
        else:
            found[name] = "up" if link.carrier else "no carrier"
    return found
