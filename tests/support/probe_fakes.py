"""Backends that the checker's probes find as a test says, in virtual time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address

from tula.health.check import Check, FailureKind, Outcome
from tula.health.checker import Checker
from tula.model.health import BackendName, Health, ProbeTarget
from tula.model.monitor import HealthMonitor, HealthPolicy, TcpProbe

SILENT = Outcome(False, "tcp: no answer within 1 s", failure=FailureKind.SILENT)
REFUSED = Outcome(False, "tcp: connection refused", failure=FailureKind.REFUSED)
PASSED = Outcome(True, "tcp: connected")


@dataclass
class Network:
    """What every probe finds, by kind and address; ``asked`` are they, with their time."""

    answers: dict[tuple[str, str], Outcome] = field(default_factory=dict)
    takes: float = 0.01
    asked: list[tuple[float, HealthMonitor, ProbeTarget, Mapping[str, str]]] = field(
        default_factory=list
    )

    async def send(
        self, settings: HealthMonitor, target: ProbeTarget, environment: Mapping[str, str]
    ) -> Outcome:
        self.asked.append((asyncio.get_running_loop().time(), settings, target, environment))
        await asyncio.sleep(self.takes)
        return self.answers.get((settings.type, str(target.address)), PASSED)

    def times(self, address: str) -> list[float]:
        """When that address was asked."""
        return [at for at, _, target, _ in self.asked if str(target.address) == address]


class Running:
    """A checker on a fake network, from ``async with``."""

    def __init__(self, network: Network, *, chance: float = 0.5) -> None:
        self.network = network
        self.changes: list[float] = []
        self.reasons: list[tuple[BackendName, str]] = []
        self.loop = asyncio.get_running_loop()
        self.checker = Checker(
            None,
            lambda: self.changes.append(self.loop.time()),
            on_evidence=self._on_evidence,
            clock=self.loop.time,
            chance=lambda: chance,
            send=network.send,
        )

    async def __aenter__(self) -> Running:
        self._task = asyncio.create_task(self.checker.run())
        await asyncio.sleep(0)
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    def _on_evidence(self, name: BackendName) -> None:
        self.reasons.append((name, self.checker.findings()[name].evidence))

    def check(
        self,
        *checks: Check,
        policy: HealthPolicy = HealthPolicy(),  # noqa: B008
        adopted: Mapping[BackendName, Health] | None = None,
    ) -> None:
        """Replaces the checks; the policy is that of all services."""
        policies = {check.backend[0]: policy for check in checks}
        self.checker.set_checks(checks, policies, adopted or {})

    def up(self, service: str = "web", backend: str = "one") -> bool | None:
        """What is found of a backend now."""
        return self.checker.findings()[service, backend].up


TCP = HealthMonitor(TcpProbe(), interval=2.0, timeout=1.0, rise=2, fall=3)


def direct(
    address: str = "10.0.0.1",
    settings: HealthMonitor = TCP,
    *,
    service: str = "web",
    backend: str = "one",
    monitor: int = 0,
) -> Check:
    """A check by the backend's own address."""
    return Check((service, backend), monitor, settings, ProbeTarget(ip_address(address), 80))


def by_vip(
    vip: str = "10.0.0.100", own: str = "10.0.0.1", settings: HealthMonitor = TCP, number: int = 7
) -> Check:
    """A check through the data path."""
    target = ProbeTarget(ip_address(vip), 80, ip_address("10.0.0.2"), 1, number)
    return Check(("web", "one"), 0, settings, target, ProbeTarget(ip_address(own), 80))
