"""What the daemon does for engines that announce VIPs: it lets them start, and starts those again
that have died where systemd does not. Once they run, they do not need it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping

from tula.daemon.snapshot import Snapshot
from tula.engine.event_log import EventLog
from tula.model.config import Config
from tula.model.event import EventKind
from tula.model.health import BackendName, Health
from tula.vip.owner import VipOwners

HEALTH_LIMIT = 10.0
"""Seconds that the first verdicts on backends are waited for."""
FLOWS_LIMIT = 9.0
"""Seconds that peers may take to tell their flows, at most."""
_POLL = 0.1
_LOOK = 0.5
"""Seconds between looks at engines' processes."""


def health_known(config: Config, findings: Mapping[BackendName, Health]) -> bool:
    """Whether there is a verdict on every backend that is checked."""
    return all(
        (found := findings.get((service.name, backend.name))) is not None and found.up is not None
        for service in config.services
        if service.health
        for backend in service.backends
    )


class BootGate:
    """An engine that is not running yet waits until this balancer can serve: its configuration is
    in the kernel, the backends' health and the peers' flows are known, each for a bounded time.

    One that runs, from before this daemon, is left alone.
    """

    def __init__(
        self,
        vips: VipOwners,
        snapshot: Callable[[], Snapshot],
        findings: Callable[[], Mapping[BackendName, Health]],
        events: EventLog,
        learn_flows: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """``learn_flows`` returns once the peers that are alive have told their flows."""
        self._vips = vips
        self._snapshot = snapshot
        self._findings = findings
        self._events = events
        self._learn_flows = learn_flows
        self._told: frozenset[str] = frozenset()
        self.open = False
        """Whether it has let engines start."""

    async def run(self) -> None:
        """Until it is cancelled."""
        if not self.open:
            await self._wait()
            self.open = True
            self._tell(await asyncio.to_thread(self._vips.let_go))
        while True:
            if self._has_engines():
                self._tell(await asyncio.to_thread(self._vips.revive))
            await asyncio.sleep(_LOOK)

    async def _wait(self) -> None:
        while not self._ready():
            await asyncio.sleep(_POLL)
        if not self._has_engines():
            return
        end = time.monotonic() + HEALTH_LIMIT
        while time.monotonic() < end and not self._health_known():
            await asyncio.sleep(_POLL)
        if self._learn_flows is not None:
            try:
                async with asyncio.timeout(FLOWS_LIMIT):
                    await self._learn_flows()
            except (OSError, TimeoutError):
                return  # without them: somebody has to announce

    def _ready(self) -> bool:
        """Whether the kernel has the configuration. At boot the interface with this machine's
        address may come late; before, it is no balancer of any."""
        snapshot = self._snapshot()
        if snapshot.applied is None or snapshot.configuration is None:
            return False
        return not snapshot.configuration.config.high_availability.enabled or self._has_engines()

    def _has_engines(self) -> bool:
        applied = self._snapshot().applied
        return applied is not None and applied.plan.state.announcing is not None

    def _health_known(self) -> bool:
        configuration = self._snapshot().configuration
        return configuration is None or health_known(configuration.config, self._findings())

    def _tell(self, lines: list[str]) -> None:
        """Each once, until it is over."""
        now = frozenset(lines)
        for line in sorted(now - self._told):
            self._events.add(EventKind.ENGINE_WARNING, message=line)
        self._told = now
