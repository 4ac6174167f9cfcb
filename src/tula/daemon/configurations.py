"""Which configuration runs, which one is accepted, and how the daemon's file stands to that.

The accepted configuration is the one on the disk: it comes back after a crash and a reboot. One
that waits for confirmation runs, and is not accepted yet. Only the writer changes anything here.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace

from tula.config.load import ConfigError, LoadedConfig, parse_config
from tula.daemon.ownership import source_of
from tula.engine.control import (
    ConditionError,
    FileState,
    Match,
    NothingToConfirmError,
    Order,
    Refusal,
    RefusedError,
)
from tula.engine.event_log import EventLog
from tula.engine.everywhere import Joint
from tula.engine.history import Record, digest_of
from tula.engine.store import Store
from tula.kernel.clock import boot_time
from tula.model.errors import StateError
from tula.model.event import EventKind
from tula.model.listening import Source
from tula.model.problem import PlacedProblem
from tula.model.wording import counted
from tula.plan.config_changes import describe_config_changes

_TOLD = 3
"""Changes, and problems, that one event names."""


@dataclass(frozen=True, slots=True)
class Tentative:
    """The running configuration waits for confirmation; ``before`` comes back otherwise.

    ``until`` is in seconds of the boot clock, the other times are in seconds since the epoch.
    Of a change on all balancers (``joint``) it is some seconds after ``asks``, by the boot clock,
    when this one begins to ask what was decided.
    """

    before: LoadedConfig
    accepted_at: float | None
    until: float
    until_wall: float
    record: Record
    joint: Joint | None = None
    asks: float = 0.0


class Configurations:
    """What it publishes in attributes is replaced and never changed in place."""

    def __init__(
        self,
        store: Store,
        events: EventLog,
        clock: Callable[[], float] = boot_time,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """``clock`` tells seconds of the boot clock, ``wall`` those since the epoch."""
        self._store = store
        self._events = events
        self._clock = clock
        self._wall = wall
        self.running: LoadedConfig | None = None
        self._digest: tuple[LoadedConfig | None, str] = (None, "")
        self.accepted_at: float | None = None
        self.tentative: Tentative | None = None
        self.refused: Refusal | None = None
        """Why the file's configuration was not taken, or cannot be read."""
        self.deferred = ""
        """Why the configuration offered last is not taken yet; it has to be offered again."""
        self.file = FileState()
        self.obstacle = ""
        """Why another configuration runs than the one that was accepted last."""

    def start(self) -> None:
        """Takes up the accepted configuration. Raises StateError.

        One that this version does not read gives way to the latest before it that it does.
        """
        source = self._store.configuration()
        if source is None:
            return
        try:
            self.running = parse_config(source)
        except ConfigError as error:
            self._start_with_older(error)
            return
        self._tell_of_an_end()
        entries = self._store.history()
        self.accepted_at = entries[-1].time if entries else None
        with suppress(StateError):  # only the history lacks it
            self._store.complete_history()

    def _tell_of_an_end(self) -> None:
        if self._store.is_tentative():
            self._events.add(
                EventKind.CONFIGURATION_REVERTED,
                message="the one before runs again: the daemon ended before it was confirmed",
            )
            self._mark(waits=False)

    def _mark(self, *, waits: bool) -> None:
        with suppress(StateError):  # only the next daemon's event lacks it
            self._store.mark_tentative(waits)

    def _start_with_older(self, error: ConfigError) -> None:
        why = f"this version of Tula does not read the accepted configuration: {error}"
        for entry in reversed(self._store.history()):
            try:
                self.running = parse_config(self._store.past_configuration(entry.number))
            except (ConfigError, StateError):
                continue
            self.accepted_at = entry.time
            self.obstacle = f"number {entry.number} of the history runs instead; {why}"
            break
        else:
            self.obstacle = why
        self._events.add(EventKind.CONFIGURATION_REFUSED, message=self.obstacle)

    def changes_to(self, configuration: LoadedConfig) -> tuple[str, ...]:
        """What would be new in it, a line each."""
        before = None if self.running is None else self.running.config
        return describe_config_changes(before, configuration.config)

    def record(self, configuration: LoadedConfig, order: Order) -> Record:
        """What the history says of it."""
        return Record(order.by, order.how, self.changes_to(configuration))

    def taken(self, configuration: LoadedConfig, order: Order, record: Record) -> None:
        """The kernel was brought to it; it is accepted, unless it waits for confirmation."""
        before, running = self.tentative, self.running
        same = running is not None and running.source == configuration.source
        self.refused, self.deferred, self.obstacle = None, "", ""
        self.tentative = None
        if order.confirm is not None and running is not None:
            kept = running if before is None else before.before
            accepted_at = self.accepted_at if before is None else before.accepted_at
            self.tentative = self._wait(Tentative(kept, accepted_at, 0, 0, record), order)
        if before is not None or self.tentative is not None:
            self._mark(waits=self.tentative is not None)
        self.running, self.accepted_at = configuration, self._wall()
        self._compare_file()
        if self.tentative is not None:
            kind = EventKind.CONFIGURATION_TENTATIVE
            what = f"goes back unless confirmed in {order.confirm:g}s"
        else:
            kind, what = EventKind.CONFIGURATION_ACCEPTED, order.how
        summary = "no other content" if same else _few(record.changes) or "no other meaning"
        services = counted(len(configuration.config.services), "service")
        self._events.add(kind, message=f"{services}; {what}", evidence=summary, by=order.by)

    def _wait(self, tentative: Tentative, order: Order) -> Tentative:
        seconds, joint = order.confirm or 0.0, order.joint
        grace = 0.0 if joint is None else joint.grace
        now, wall = self._clock() + seconds, self._wall() + seconds
        return replace(tentative, until=now + grace, until_wall=wall + grace, joint=joint, asks=now)

    def hold(self, joint: Joint, seconds: float) -> str:
        """What waits for a change on all balancers does so for ``seconds`` at least, for this
        coordinator's decision. The digest of what comes back otherwise. Raises
        NothingToConfirmError."""
        tentative = self.tentative
        if tentative is None or tentative.joint is None or tentative.joint.id != joint.id:
            raise NothingToConfirmError
        longer = self._wait(tentative, Order(confirm=seconds, joint=joint))
        if longer.asks < tentative.asks:
            times = tentative.asks, tentative.until, tentative.until_wall
            longer = replace(longer, asks=times[0], until=times[1], until_wall=times[2])
        self.tentative = longer
        return digest_of(tentative.before.source.encode())

    def require(self, order: Order) -> None:
        """Raises ConditionError for the order's match, and RefusedError for one that would have to
        go back and cannot."""
        self.require_match(order.match)
        if order.confirm is not None and self.running is None:
            raise RefusedError(
                ("there is no configuration to go back to; apply without --confirm",)
            )
        if order.joint is not None and self.tentative is not None:
            raise RefusedError(
                (
                    "another configuration waits for confirmation here: tula confirm, or tula "
                    "rollback",
                )
            )

    def require_confirmable(self, match: Match, change: str) -> None:
        """Raises ConditionError for the match, NothingToConfirmError if nothing waits, and
        RefusedError if that is part of another change on all balancers than this one (empty:
        none)."""
        self.require_match(match)
        if self.tentative is None:
            raise NothingToConfirmError
        joint = self.tentative.joint
        if joint is None and change:
            raise NothingToConfirmError
        if joint is not None and joint.id != change:
            raise RefusedError(
                ("this configuration waits on all balancers: tula confirm --everywhere",)
            )

    def confirmed(self, by: str) -> None:
        """What waited for confirmation is accepted."""
        self.tentative = None
        self._mark(waits=False)
        self._events.add(EventKind.CONFIGURATION_CONFIRMED, by=by)

    def go_back(self, why: str, by: str = "") -> None:
        """The configuration from before the tentative one runs again, once the kernel has it."""
        tentative = self.tentative
        if tentative is None:
            return
        self.tentative = None
        self._mark(waits=False)
        self.running, self.accepted_at = tentative.before, tentative.accepted_at
        self._compare_file()
        self._events.add(
            EventKind.CONFIGURATION_REVERTED, message=f"the one before runs again: {why}", by=by
        )

    @property
    def digest(self) -> str:
        """SHA-256 of the running configuration's text; empty if none runs."""
        running = self.running
        if running is None:
            return ""
        known, digest = self._digest
        if known is not running:
            digest = digest_of(running.source.encode())
            self._digest = (running, digest)
        return digest

    def require_match(self, match: Match) -> None:
        """Raises ConditionError unless one of those configurations runs."""
        if match is not None and self.digest not in match:
            raise ConditionError(self.digest)

    @property
    def overdue(self) -> bool:
        """Whether the time to confirm is over."""
        return self.tentative is not None and self._clock() >= self.tentative.until

    def still_accepted(self) -> None:
        """The file holds the running configuration, again or still."""
        self.refused, self.deferred = None, ""

    def defer(self, reason: str) -> None:
        """The offered configuration could not be taken now."""
        if reason != self.deferred:
            self._events.add(
                EventKind.CYCLE_FAILED, message=f"configuration change deferred: {reason}"
            )
        self.deferred = reason

    def refuse(
        self, problems: tuple[PlacedProblem, ...], file: str = "", by: str = "", keep: bool = True
    ) -> None:
        """A configuration is not taken for these problems; the one before goes on.

        ``file`` is its name for people. ``keep``: it is that of the daemon's file.
        """
        known = self.refused is not None and self.refused.problems == problems
        if keep:
            self.deferred = ""
            if not known:
                self.refused = Refusal(self._wall(), problems)
        if known and keep:
            return
        lines = [problem.describe(file) if file else problem.message for problem in problems]
        rest = tuple(lines[1 : _TOLD + 1])
        if len(lines) > _TOLD + 1:
            rest = (*rest, f"and {len(lines) - _TOLD - 1} more")
        self._events.add(
            EventKind.CONFIGURATION_REFUSED,
            message=lines[0] if lines else "",
            evidence="; ".join(rest),
            by=by,
        )

    def found_file(self, text: bytes | None, name: str) -> None:
        """The file holds this text now; None: it cannot be read."""
        before = self.file
        digest = None if text is None else digest_of(text)
        if self.ignores_file:
            if None not in (digest, before.digest) and digest != before.digest:
                self._events.add(
                    EventKind.CONFIGURATION_IGNORED,
                    message=f"{name} was changed, and is ignored: the configuration is written "
                    "over the network (api: source: api)",
                )
            self.file = FileState(digest or before.digest)
            return
        if digest != before.digest and digest is not None:
            self.refused, self.deferred = None, ""  # that was about other content
        self.file = replace(before, digest=digest)
        self._compare_file()
        if before.differs_since is None and self.file.differs_since is not None:
            self._events.add(
                EventKind.CONFIGURATION_DIFFERS,
                message=f"{name} differs from what runs; tula plan shows how, tula reload takes it",
            )

    @property
    def ignores_file(self) -> bool:
        """Whether the configuration is written over the network, and the file was the first."""
        return source_of(self.running) is Source.API

    def _compare_file(self) -> None:
        running, digest = self.running, self.file.digest
        if running is None or digest is None or self.digest == digest or self.ignores_file:
            self.file = FileState(digest)
        elif self.file.differs_since is None:
            self.file = FileState(digest, self._wall())


def _few(lines: tuple[str, ...]) -> str:
    more = (f"and {len(lines) - _TOLD} more",) if len(lines) > _TOLD else ()
    return "; ".join((*lines[:_TOLD], *more))
