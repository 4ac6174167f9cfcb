"""A machine as a backend: what it must have, and what it has."""

from __future__ import annotations

from dataclasses import dataclass, field

from tula.agent.plan import Role, plan_backend_setup, role_by_addresses
from tula.doctor.observation import Observation
from tula.kernel.backend_host import BackendHost, KernelBackendHost
from tula.kernel.base_chains import read_arriving_chains, read_legacy_nat
from tula.kernel.listeners import Listener, read_listeners
from tula.model.backend_setup import BackendFacts, BackendSetup
from tula.model.chain import BaseChain


@dataclass(frozen=True, slots=True)
class BackendState:
    """``want`` and ``facts`` of one backend; the facts include the sysctls of all interfaces."""

    role: Role
    want: BackendSetup
    facts: BackendFacts = field(default_factory=BackendFacts)
    listeners: frozenset[Listener] = frozenset()
    chains: tuple[BaseChain, ...] = ()
    legacy_nat: frozenset[int] = frozenset()
    """The IP versions for which there are NAT rules of iptables-legacy, which cannot be read."""

    def effective(self, interface: str, setting: str) -> int | None:
        """An IPv4 setting of an interface: the larger of its own and that of all counts
        (ip-sysctl.rst; inetdevice.h, IN_DEV_MAXCONF). None if the interface has none."""
        values = [
            self.facts.settings.get(f"net/ipv4/conf/{name}/{setting}")
            for name in ("all", interface)
        ]
        if values[1] is None:
            return None
        return max(int(value) for value in values if value is not None and value.isdecimal())


def observe_backend(observed: Observation, host: BackendHost | None = None) -> BackendState | None:
    """Reads the machine as a backend; None when it is none. Changes nothing. Raises KernelError."""
    role = role_by_addresses(observed.config, observed.addresses - observed.vips)
    if role is None:
        return None
    host = host if host is not None else KernelBackendHost()
    settings = [
        f"net/ipv4/conf/{name}/{setting}"
        for name in ("all", *observed.host.links)
        for setting in ("arp_ignore", "arp_announce", "rp_filter")
    ]
    return BackendState(
        role=role,
        want=plan_backend_setup([role]),
        facts=host.observe(settings),
        listeners=read_listeners(),
        chains=tuple(read_arriving_chains()),
        legacy_nat=read_legacy_nat(),
    )
