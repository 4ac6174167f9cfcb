"""Which backends get nothing before their first pass (``health: {initial: down}``). Pure.

That is for backends that are new. One that serves goes on: whatever the daemon, its checks, the
backend's name or its service's become, it is the same server for the same VIP.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

from tula.model.config import Config, VirtualService
from tula.model.health import BackendName, Health
from tula.model.problem import Problem

Waiting = frozenset[BackendName]
NONE_WAIT: Waiting = frozenset()


def guarded_services(config: Config) -> Iterator[VirtualService]:
    """The services whose new backends wait for their first pass."""
    return (s for s in config.services if s.health and not s.policy.initial_up)


def plan_waiting(before: Config, waiting: Waiting, after: Config) -> Waiting:
    """Those that wait once ``after`` takes the place of ``before``, of which ``waiting`` wait."""
    if before is after:
        return waiting
    found = set()
    known = _Known(before, after)
    for service in guarded_services(after):
        old = known.predecessor(service)
        names = {} if old is None else {b.key: (old.name, b.name) for b in old.backends}
        for backend in service.backends:
            name = names.get(backend.key)
            if name is None or name in waiting:
                found.add((service.name, backend.name))
    return frozenset(found)


def still_waiting(waiting: Waiting, findings: Mapping[BackendName, Health]) -> Waiting:
    """Those that have not passed since."""
    passed = {n for n in waiting if (finding := findings.get(n)) is not None and finding.up}
    return waiting - passed if passed else waiting


def waiting_beside(config: Config, serving: Collection[BackendName]) -> Waiting:
    """Those that wait where nothing is known but which ones get packets."""
    names = {(s.name, b.name) for s in guarded_services(config) for b in s.backends}
    return frozenset(names.difference(serving))


def unchecked_problems(config: Config) -> Iterator[Problem]:
    """Why a configuration cannot run without a daemon; one problem for all of its services."""
    names = [service.name for service in guarded_services(config)]
    if not names:
        return
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    yield Problem(
        ("services", names[0], "health", "initial"),
        f"service {names[0]}{more} has initial: down, and nothing checks without the daemon, so a "
        "new backend would never serve; start the daemon (systemctl start tula), or give "
        "initial: up",
    )


class _Known:
    """The services of a configuration, as those of another one find them again."""

    def __init__(self, before: Config, after: Config) -> None:
        self._by_name = {service.name: service for service in before.services}
        left = self._by_name.keys() - {service.name for service in after.services}
        self._left = {vip: s for s in before.services if s.name in left for vip in s.vips}

    def predecessor(self, service: VirtualService) -> VirtualService | None:
        """The service of that name, or the one that left and had one of its VIPs and ports."""
        old = self._by_name.get(service.name)
        if old is not None:
            return old
        for vip in service.vips:
            left = self._left.get(vip)
            if left is not None and _share_ports(left, service):
                return left
        return None


def _share_ports(one: VirtualService, other: VirtualService) -> bool:
    if not set(one.protocols) & set(other.protocols):
        return False
    if not one.ports or not other.ports:
        return not one.ports and not other.ports
    return any(a.first <= b.last and b.first <= a.last for a in one.ports for b in other.ports)
