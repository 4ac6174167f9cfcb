"""How bad each kind of event is, which of them belong together, and which one ends another."""

from __future__ import annotations

from dataclasses import asdict
from enum import StrEnum
from typing import Any

from tula.model.event import Event, EventKind


class Severity(StrEnum):
    """From the least to the worst."""

    INFO = "info"
    """somebody did something, or something is well again"""
    WARNING = "warning"
    """something is broken, and clients are served all the same"""
    CRITICAL = "critical"
    """clients may not be served, or nobody would take over"""

    @property
    def rank(self) -> int:
        """Higher is worse."""
        return _RANKS[self]


_RANKS = {Severity.INFO: 0, Severity.WARNING: 1, Severity.CRITICAL: 2}

_CRITICAL = frozenset(
    {
        EventKind.PANIC_STARTED,
        EventKind.MINIMUM_MISSED,
        EventKind.CYCLE_FAILED,
        EventKind.NETWORK_WARNING,
        EventKind.PEER_LOST,
        EventKind.ROLES_WRONG,
        EventKind.EVERYWHERE_IN_DOUBT,
    }
)
_WARNING = frozenset(
    {
        EventKind.BACKEND_DOWN,
        EventKind.BACKEND_WARNING,
        EventKind.BACKUPS_STARTED,
        EventKind.CLIENTS_FULL,
        EventKind.CONFIGURATION_REFUSED,
        EventKind.CONFIGURATION_DIFFERS,
        EventKind.CONFIGURATION_IGNORED,
        EventKind.CONFIGURATION_REVERTED,
        EventKind.KERNEL_REPAIRED,
        EventKind.API_WARNING,
        EventKind.ENGINE_WARNING,
        EventKind.TASK_FAILED,
        EventKind.CONFIGURATIONS_DIFFER,
        EventKind.OVERRIDES_DIFFER,
        EventKind.CLOCKS_DIFFER,
        EventKind.EVERYWHERE_TAKEN_BACK,
        EventKind.EVERYWHERE_UNFINISHED,
        EventKind.AUDIT_FAILED,
        EventKind.NOTIFY_FAILED,
    }
)


def severity_of(kind: EventKind) -> Severity:
    """How bad it is that this happens."""
    if kind in _CRITICAL:
        return Severity.CRITICAL
    return Severity.WARNING if kind in _WARNING else Severity.INFO


def describe_event(event: Event) -> dict[str, Any]:
    """As JSON has it."""
    return {**asdict(event), "severity": str(severity_of(event.kind))}


ENDS: dict[EventKind, EventKind] = {
    EventKind.BACKEND_UP: EventKind.BACKEND_DOWN,
    EventKind.PANIC_ENDED: EventKind.PANIC_STARTED,
    EventKind.BACKUPS_ENDED: EventKind.BACKUPS_STARTED,
    EventKind.MINIMUM_REACHED: EventKind.MINIMUM_MISSED,
    EventKind.UNDRAINED: EventKind.DRAINED,
    EventKind.ENABLED: EventKind.DISABLED,
    EventKind.ACTIVE: EventKind.STANDBY,
    EventKind.NETWORK_RECOVERED: EventKind.NETWORK_WARNING,
    EventKind.API_RECOVERED: EventKind.API_WARNING,
    EventKind.CYCLE_RECOVERED: EventKind.CYCLE_FAILED,
    EventKind.PEER_BACK: EventKind.PEER_LOST,
    EventKind.CONFIGURATIONS_EQUAL: EventKind.CONFIGURATIONS_DIFFER,
    EventKind.OVERRIDES_EQUAL: EventKind.OVERRIDES_DIFFER,
    EventKind.CLOCKS_EQUAL: EventKind.CLOCKS_DIFFER,
    EventKind.ROLES_RIGHT: EventKind.ROLES_WRONG,
    EventKind.NOTIFY_RECOVERED: EventKind.NOTIFY_FAILED,
}
"""What ends, by what ends it, of one subject."""

BEGINS = frozenset(ENDS.values())
"""What lasts until another kind ends it; everything else happens and is over."""


_OF_BACKENDS = frozenset(
    {
        EventKind.BACKEND_UP,
        EventKind.BACKEND_DOWN,
        EventKind.BACKEND_DIAGNOSED,
        EventKind.BACKEND_WARNING,
        EventKind.PANIC_STARTED,
        EventKind.PANIC_ENDED,
        EventKind.BACKUPS_STARTED,
        EventKind.BACKUPS_ENDED,
        EventKind.MINIMUM_MISSED,
        EventKind.MINIMUM_REACHED,
    }
)
_OVERRIDES = frozenset(
    {
        EventKind.DRAINED,
        EventKind.UNDRAINED,
        EventKind.DISABLED,
        EventKind.ENABLED,
        EventKind.WEIGHT_SET,
    }
)

SHARED = _OF_BACKENDS | _OVERRIDES
"""What several balancers of one configuration see of the same thing; the rest is about one
balancer, or seen from it."""

OF_SERVICES = SHARED | {EventKind.DRAIN_ENDED}
"""Whose subject is a service, or a backend of one."""

GROUPS: dict[str, frozenset[EventKind]] = {
    "backends": _OF_BACKENDS,
    "operator": _OVERRIDES | {EventKind.DRAIN_ENDED, EventKind.STANDBY, EventKind.ACTIVE},
    "configuration": frozenset(
        kind for kind in EventKind if kind.startswith(("configuration-", "everywhere-"))
    ),
    "balancers": frozenset(
        kind
        for kind in EventKind
        if kind.startswith(("peer-", "configurations-", "overrides-", "clocks-", "roles-"))
    ),
}
"""Words that stand for several kinds."""
GROUPS["machine"] = frozenset(EventKind).difference(*GROUPS.values())
