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
from tula.agent.diff import BackendStep
from tula.agent.identity import NotABackendError
from tula.agent.plan import Role
from tula.agent.record import Record
from tula.kernel.events import EventSource
from tula.model.errors import KernelError
from tula.model.wording import counted, named

_SETTINGS, _ALL, _SOON, _RETRY = 2.0, 60.0, 0.2, 5.0
"""Seconds between two looks at the sysctls, at everything, after a failure, and after another."""
_PLURALS = {"address": "addresses"}


class Severity(Enum):
    """As syslog's numbers (sd-daemon(3))."""

    ERROR = 3
    WARNING = 4
    INFO = 6


Tell = Callable[[Severity, str], None]


@dataclass
class Budget:
    """What may be spent at once, and how fast it comes back; the clock is an argument.

    Nobody waits for longer than ``longest`` seconds: what is owed beyond is forgiven.
    """

    limit: float
    per_second: float
    longest: float
    _left: float = field(init=False)
    _at: float | None = None

    def __post_init__(self) -> None:
        self._left = self.limit

    def spend(self, amount: float, now: float) -> float:
        """Seconds to wait until nothing is owed."""
        if self._at is not None:
            self._left = min(self.limit, self._left + (now - self._at) * self.per_second)
        self._at = now
        self._left = max(self._left - amount, -self.longest * self.per_second)
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
        # A twentieth of a CPU at most, however often the kernel tells of something; more where a
        # look takes long because the machine is slow.
        self._looking = Budget(1.0, 0.05, longest=1.0)
        # Ten times at once: who fights another program must not be the one who keeps both busy.
        self._repairing = Budget(10.0, 1 / 6, longest=6.0)
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
            self._pause = self._repairing.spend(1, self._clock())
            if self._pause:
                self._complain(
                    f"something takes this again and again: {_named(repair.done)}; it is put back "
                    "more slowly now. Find out what does it, such as a file of systemd-networkd or "
                    "a cron job"
                )
        return not repair.failed

    def _report(self, repair: Repair) -> None:
        groups: dict[tuple[str, str, str], list[BackendStep]] = {}
        for step in repair.done:
            verb = "removed" if step.verb == "remove" else "repaired"
            groups.setdefault((verb, step.what, step.reason), []).append(step)
        for (verb, _, reason), steps in groups.items():
            self._tell(Severity.WARNING, f"{verb} {_named(steps)}" + f" ({reason})" * bool(reason))
        if repair.failed:
            # Once is nothing: what was seen a moment ago may be going just now.
            if self._failures:
                (step, why), *others = repair.failed
                more = f"; and {counted(len(others), 'other')}" if others else ""
                reason = f" ({step.reason})" if step.reason else ""
                self._complain(f"not repaired: {_named([step])}{reason}: {why}{more}")
        elif not repair.done:
            self._said = ""

    def _complain(self, text: str) -> None:
        """Once, until all was well in between."""
        if text != self._said:
            self._said = text
            self._tell(Severity.ERROR, text)


def _named(steps: Sequence[BackendStep]) -> str:
    """``address A``, ``addresses A and B``: of many, the first and how many more, by kind."""
    kinds: dict[str, list[str]] = {}
    for step in steps:
        kinds.setdefault(step.what, []).append(step.name)
    return ", ".join(
        f"{what if len(names) == 1 else _PLURALS.get(what, what + 's')} {named(names)}"
        for what, names in kinds.items()
    )
