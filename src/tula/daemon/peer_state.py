"""What is known of one other balancer, and what is told of it. Pure: times are arguments.

An event comes once for a change. A difference is told when it has lasted: between the steps of an
``apply --everywhere`` balancers differ for a moment.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tula.engine.peer_facts import PeerFacts
from tula.engine.peer_view import (
    Otherwise,
    View,
    same_configuration,
    same_overrides,
    seen_otherwise,
)
from tula.model.event import EventKind

LOST = 3.0
"""Seconds without an answer after which a balancer counts as lost."""
_SILENT = 2 * LOST
LASTS = 3.0
"""Seconds after which a difference is told."""
CLOCKS = 2.0
"""Seconds by which clocks may differ."""

Told = tuple[EventKind, str]
"""An event's kind, and its message."""


@dataclass(slots=True)
class Lasting:
    """A condition that is told of when it has held for ``after`` seconds, and when it has ended."""

    after: float = LASTS
    told: bool = False
    _since: float | None = None

    def turned(self, now: float, holds: bool | None) -> bool | None:
        """Whether it has come to hold, or has ended, by now; None: neither. What is not known
        (None) changes nothing."""
        if holds is None:
            return None
        if not holds:
            self._since = None
            if self.told:
                self.told = False
                return False
            return None
        if self._since is None:
            self._since = now
        if self.told or now - self._since < self.after:
            return None
        self.told = True
        return True


@dataclass(slots=True)
class PeerState:
    """One other balancer. ``now`` is by time.monotonic everywhere, ``wall`` in seconds since the
    epoch."""

    name: str
    address: str
    added: bool = True
    view: View | None = None
    alive: bool = False
    why: str = ""
    heard: float | None = None
    since: float | None = None
    clock: float | None = None
    owed: bool = False
    """it came back, and our flows are still to be sent to it"""
    otherwise: tuple[Otherwise, ...] = ()
    same: tuple[bool | None, bool | None] = None, None
    """configuration, overrides"""
    _began: float | None = None
    _last: float | None = None
    _lost: bool = False
    _configurations: Lasting = field(default_factory=Lasting)
    _overrides: Lasting = field(default_factory=Lasting)
    _clocks: Lasting = field(default_factory=Lasting)
    _compared: tuple[object, object, object] = None, None, None

    def answered(self, view: View, sent: float, now: float, wall: float) -> Iterator[Told]:
        """It answered at ``now`` (``wall``) what it was asked at ``sent``."""
        anew = self.view is None or view.start != self.view.start
        back, self._last, self.heard, self.why = not self.alive, now, wall, ""
        if view.time is not None:
            # Its clock was read between the two: half the way there, as far as can be told.
            self.clock = view.time - (wall - (now - sent) / 2)
        if anew or back:
            self.owed = True
            if back:
                self.alive, self.since = True, wall
            if self._lost:
                yield EventKind.PEER_BACK, "it answers again" + _anew(self.view, view)
            elif self.view is not None:
                yield EventKind.PEER_BACK, "its daemon was started anew" + _anew(self.view, view)
            self._lost = False
        self.view = view

    def failed(self, why: str, now: float, wall: float) -> Iterator[Told]:
        """It did not answer, for this reason."""
        self.why = why
        if self._began is None:
            self._began = now
        since = self._began if self._last is None else self._last
        if now - since < LOST or self._lost:
            return
        self._lost = True
        if self.alive or self.since is None:
            self.alive, self.since = False, self.heard if self.heard is not None else wall
        yield EventKind.PEER_LOST, f"{why}; traffic goes on, and so does its own if it lives"

    def silent(self, now: float, wall: float) -> Iterator[Told]:
        """To be asked now and then: an answer that never comes to its end is none."""
        if self.alive and self._last is not None and now - self._last > _SILENT:
            yield from self.failed("no whole answer comes", now, wall)

    def judge(self, own: View, known: frozenset[str], now: float) -> Iterator[Told]:
        """Compares it with this balancer, whose backends are ``known``."""
        view = self.view if self.alive else None
        if view is None:
            return
        # Equal by identity mostly: the details are the same objects until they change.
        compared = _of(own), _of(view), known
        if compared != self._compared:
            self._compared = compared
            self.same = same_configuration(own, view), same_overrides(own, view)
            self.otherwise = ()
            if own.details is not None and view.details is not None:
                self.otherwise = seen_otherwise(own.details, view.details, known)
        configuration, overrides = self.same
        turned = self._configurations.turned(now, _not(configuration))
        if turned is not None:
            yield _configurations(turned, own, view)
        turned = self._overrides.turned(now, _not(overrides))
        if turned is not None:
            yield _overrides(turned, own, view)
        if self.clock is not None:
            turned = self._clocks.turned(now, abs(self.clock) > CLOCKS)
            if turned is not None:
                yield _clocks(turned, self.clock)

    def facts(self, own_name: str) -> PeerFacts:
        """For status and metrics. A difference counts here at once, if not for an event."""
        view, (configuration, overrides) = self.view or View(), self.same
        details = view.details
        return PeerFacts(
            name=self.name,
            address=self.address,
            added=self.added,
            alive=self.alive,
            heard=self.heard,
            since=self.since,
            why="" if self.alive else self.why,
            version=view.version,
            schema=view.schema,
            role=view.role,
            standby=view.standby,
            digest=view.digest,
            tentative=view.tentative,
            configuration_equal=configuration,
            overrides_equal=overrides,
            services=None if details is None else details.services,
            served=None if details is None else details.served,
            otherwise=self.otherwise if self.alive else (),
            flows=view.flows,
            hears_us=view.hears.get(own_name),
            clock=self.clock,
        )


def _of(view: View) -> tuple[object, ...]:
    return view.details, view.overrides_digest, view.digest, view.shared_digest


def _not(same: bool | None) -> bool | None:
    return None if same is None else not same


def _anew(before: View | None, now: View) -> str:
    if before is not None and before.version != now.version:
        return f", version {now.version or 'unknown'} in place of {before.version or 'unknown'}"
    if before is not None and before.boot != now.boot:
        return ", its machine was started anew"
    return ""


def _configurations(differ: bool, own: View, view: View) -> Told:
    if not differ:
        return EventKind.CONFIGURATIONS_EQUAL, f"both run {own.digest[:12] or 'the same'}"
    return (
        EventKind.CONFIGURATIONS_DIFFER,
        f"{own.digest[:12] or 'none'} runs here, {view.digest[:12] or 'none'} there",
    )


def _overrides(differ: bool, own: View, view: View) -> Told:
    if not differ:
        return EventKind.OVERRIDES_EQUAL, "backends are drained, disabled and weighed the same"
    here = own.details.overrides if own.details is not None else {}
    there = view.details.overrides if view.details is not None else {}
    names = sorted(n for n in {*here, *there} if here.get(n) != there.get(n))
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return (
        EventKind.OVERRIDES_DIFFER,
        f"of {', '.join(names[:3])}{more}" if names else "they differ",
    )


def _clocks(differ: bool, ahead: float) -> Told:
    if not differ:
        return EventKind.CLOCKS_EQUAL, "they agree again"
    way = "ahead of" if ahead > 0 else "behind"
    return EventKind.CLOCKS_DIFFER, f"its clock is {abs(ahead):.1f} s {way} this machine's"
