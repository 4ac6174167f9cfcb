"""What happened, as the daemon remembers it for people and programs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class EventKind(StrEnum):
    """Short fixed words; programs choose by them. Add to them, do not change them."""

    DAEMON_STARTED = "daemon-started"
    DAEMON_STOPPED = "daemon-stopped"
    CONFIGURATION_ACCEPTED = "configuration-accepted"
    CONFIGURATION_REFUSED = "configuration-refused"
    CONFIGURATION_DIFFERS = "configuration-differs"
    """the daemon's file was changed, and nobody has had it accepted"""
    CONFIGURATION_IGNORED = "configuration-ignored"
    """the daemon's file was changed, and the configuration is written over the network"""
    CONFIGURATION_TENTATIVE = "configuration-tentative"
    """it runs, and goes unless it is confirmed in time"""
    CONFIGURATION_CONFIRMED = "configuration-confirmed"
    CONFIGURATION_REVERTED = "configuration-reverted"
    """the one before the tentative one runs again"""
    BACKEND_UP = "backend-up"
    BACKEND_DOWN = "backend-down"
    BACKEND_DIAGNOSED = "backend-diagnosed"
    """why one is down that is down"""
    BACKEND_WARNING = "backend-warning"
    """something that does not count yet, such as a certificate that expires soon"""
    DRAINED = "drained"
    """the operator gives a backend no new connections"""
    DRAIN_ENDED = "drain-ended"
    """no connection is left, or the deadline has passed: connections that are left are reset"""
    UNDRAINED = "undrained"
    DISABLED = "disabled"
    ENABLED = "enabled"
    WEIGHT_SET = "weight-set"
    PANIC_STARTED = "panic-started"
    """so few backends of a service are up that all serve"""
    PANIC_ENDED = "panic-ended"
    BACKUPS_STARTED = "backups-started"
    """a service's backups serve, since too few other backends can; or those of another level do"""
    BACKUPS_ENDED = "backups-ended"
    MINIMUM_MISSED = "minimum-missed"
    """fewer backends of a service can serve than its minimum, so nobody does"""
    MINIMUM_REACHED = "minimum-reached"
    KERNEL_REPAIRED = "kernel-repaired"
    """the kernel was not as Tula had left it: somebody else changed it"""
    NETWORK_WARNING = "network-warning"
    """this machine lacks what the configuration needs: an interface, a route, a carrier"""
    NETWORK_RECOVERED = "network-recovered"
    """it lacks nothing any more"""
    API_WARNING = "api-warning"
    """the network is not answered as the configuration says: an address, a certificate"""
    API_RECOVERED = "api-recovered"
    ENGINE_WARNING = "engine-warning"
    """an engine that announces VIPs (keepalived, BIRD) ended, or could not be started"""
    STANDBY = "standby"
    """the operator wants other balancers to have the VIPs"""
    ACTIVE = "active"
    """the operator takes that back"""
    CYCLE_FAILED = "cycle-failed"
    CYCLE_RECOVERED = "cycle-recovered"
    TASK_FAILED = "task-failed"
    """a background task of the daemon failed, and is started again"""
    PEER_LOST = "peer-lost"
    """another balancer's daemon does not answer; its data path may well go on"""
    PEER_BACK = "peer-back"
    """it answers again, or was started anew"""
    CONFIGURATIONS_DIFFER = "configurations-differ"
    """another balancer runs another configuration than this one"""
    CONFIGURATIONS_EQUAL = "configurations-equal"
    OVERRIDES_DIFFER = "overrides-differ"
    """what is drained, disabled or weighed otherwise is not the same on another balancer"""
    OVERRIDES_EQUAL = "overrides-equal"
    CLOCKS_DIFFER = "clocks-differ"
    """another balancer's clock is more than two seconds away from this one's"""
    CLOCKS_EQUAL = "clocks-equal"
    ROLES_WRONG = "roles-wrong"
    """several balancers hold the VIPs of VRRP, or none does"""
    ROLES_RIGHT = "roles-right"
    EVERYWHERE_DONE = "everywhere-done"
    """a change has reached all balancers"""
    EVERYWHERE_TAKEN_BACK = "everywhere-taken-back"
    """one refused a change of all, or did not answer: none has it"""
    EVERYWHERE_UNFINISHED = "everywhere-unfinished"
    """it is decided, and not every balancer has it yet"""
    EVERYWHERE_IN_DOUBT = "everywhere-in-doubt"
    """this one waits for a decision, and nobody who knows it answers"""
    CLIENTS_FULL = "clients-full"
    """a table of persistent clients is full: new ones are not remembered"""
    AUDIT_FAILED = "audit-failed"
    """the disk takes no entries of the audit log; changes are made all the same"""
    NOTIFY_FAILED = "notify-failed"
    """a receiver of notifications has taken none for long"""
    NOTIFY_RECOVERED = "notify-recovered"
    """it takes them again"""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened; numbers count up, without gaps while the daemon runs.

    ``time`` is in seconds since the epoch; ``subject`` is ``service/backend``, a service's name,
    or empty; ``evidence`` is one line, such as what a probe saw; ``by`` is who asked for it, empty
    for what the daemon did by itself.
    """

    number: int
    time: float
    kind: EventKind
    subject: str = ""
    message: str = ""
    evidence: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some of a daemon's events, the oldest first.

    ``epoch`` names the log that goes on over restarts: numbers mean something only with it.
    """

    epoch: str
    events: tuple[Event, ...]


def choose_events(events: Sequence[Event], after: int | None, limit: int) -> list[Event]:
    """The first ``limit`` events after number ``after``; without it, the last ``limit`` ones.

    A number that is still to come is one of an earlier daemon: all events are new then.
    """
    if limit <= 0 or not events:
        return []
    if after is None:
        return list(events[-limit:])
    if after > events[-1].number:
        after = 0
    return [event for event in events if event.number > after][:limit]
