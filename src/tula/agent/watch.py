"""``tula backend join --watch``: puts back what others take, as soon as the kernel tells of it.

systemd-networkd, ifupdown, a firewall's reload or a person remove the VIPs, devices, rules or
sysctls of a backend, and nobody notices but the clients. This process hears of links, addresses and
nftables by netlink, looks at its few sysctls every two seconds and at everything once a minute.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum

from tula.agent.agent import Agent, CannotJoinError, Repair
from tula.agent.identity import NotABackendError
from tula.agent.plan import Role
from tula.agent.record import Record
from tula.kernel.events import EventSource
from tula.model.errors import KernelError

_SETTINGS, _ALL, _SOON, _RETRY = 2.0, 60.0, 0.2, 5.0
"""Seconds between two looks at the sysctls, at everything, after a failure, and after another."""


class Severity(Enum):
    """As syslog's numbers (sd-daemon(3))."""

    ERROR = 3
    WARNING = 4
    INFO = 6


Tell = Callable[[Severity, str], None]


@dataclass
class Budget:
    """What may be spent at once, and how fast it comes back; the clock is an argument."""

    limit: float
    per_second: float
    _left: float = field(init=False)
    _at: float | None = None

    def __post_init__(self) -> None:
        self._left = self.limit

    def spend(self, amount: float, now: float) -> float:
        """Seconds to wait until nothing is owed."""
        if self._at is not None:
            self._left = min(self.limit, self._left + (now - self._at) * self.per_second)
        self._at = now
        self._left -= amount
        return max(0.0, -self._left / self.per_second)


class Watch:
    """One machine's; ``run`` ends when it has left."""

    def __init__(
        self,
        agent: Agent,
        events: EventSource,
        roles_of: Callable[[Record], Sequence[Role]],
        tell: Tell,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._agent = agent
        self._events = events
        self._roles_of = roles_of
        self._tell = tell
        self._clock = clock
        self._sleep = sleep
        # A twentieth of a CPU at most, however often the kernel tells of something.
        self._looking = Budget(1.0, 0.05)
        # Who fights another program for an address must not be the one who keeps both busy.
        self._repairing = Budget(10.0, 1 / 6)
        self._said = ""
        self._pause = 0.0
        self._failures = 0
        """In a row."""

    def run(self) -> None:
        """Repairs until this machine has left; the events are open."""
        due = self._clock()
        settings: dict[str, str] = {}
        while True:
            now = self._clock()
            if now < due and not self._is_told(min(_SETTINGS, due - now)):
                try:
                    changed = self._agent.settings() != settings
                except KernelError:
                    changed = True
                if not changed and self._clock() < due:
                    continue
            began = self._clock()
            fine = self._look()
            if fine is None:
                return
            settings = self._agent.settings() if fine else {}
            now = self._clock()
            self._failures = 0 if fine else self._failures + 1
            due = now + (_ALL if fine else _SOON if self._failures == 1 else _RETRY)
            self._sleep(max(self._pause, self._looking.spend(now - began, now)))

    def _is_told(self, timeout: float) -> bool:
        """Whether the kernel told of something in this time."""
        select.select(self._events.filenos(), (), (), timeout)
        return bool(self._events.drain())

    def _look(self) -> bool | None:
        """Whether all is in place now; None if this machine has left."""
        self._pause = 0.0
        try:
            repair = self._agent.repair(self._roles_of)
        except (KernelError, CannotJoinError, NotABackendError) as error:
            self._complain(f"cannot look after this backend: {error}")
            return False
        if repair is None:
            self._tell(Severity.INFO, "this machine is no longer a backend")
            return None
        self._report(repair)
        if repair.done:
            self._pause = self._repairing.spend(len(repair.done), self._clock())
            if self._pause:
                names = ", ".join(f"{step.what} {step.name}" for step in repair.done)
                self._complain(
                    f"something takes this again and again: {names}; it is put back more slowly "
                    "now. Find out what does it, such as a file of systemd-networkd or a cron job"
                )
        return not repair.failed

    def _report(self, repair: Repair) -> None:
        for step in repair.done:
            reason = f" ({step.reason})" if step.reason else ""
            verb = "removed" if step.verb == "remove" else "repaired"
            self._tell(Severity.WARNING, f"{verb} {step.what} {step.name}{reason}")
        if repair.failed:
            # Once is nothing: what was seen a moment ago may be going just now.
            if self._failures:
                each = [f"{s.what} {s.name} ({s.reason}): {why}" for s, why in repair.failed]
                self._complain(f"not repaired: {'; '.join(each)}")
        elif not repair.done:
            self._said = ""

    def _complain(self, text: str) -> None:
        """Once, until all was well in between."""
        if text != self._said:
            self._said = text
            self._tell(Severity.ERROR, text)
