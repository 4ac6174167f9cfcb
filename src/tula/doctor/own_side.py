"""A machine as the backend that it is: what it must have, and what it has."""

from __future__ import annotations

from dataclasses import dataclass, field

from tula.agent.plan import Role
from tula.kernel.listening import Listener
from tula.model.backend_setup import BackendFacts, BackendSetup
from tula.model.chain import BaseChain


@dataclass(frozen=True, slots=True)
class OwnSide:
    """``facts`` hold the sysctls of all interfaces."""

    role: Role
    want: BackendSetup
    facts: BackendFacts = field(default_factory=BackendFacts)
    listeners: frozenset[Listener] = frozenset()
    chains: tuple[BaseChain, ...] = ()

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
