"""What one machine's kernel tells of the services: counts, tables, the way of a flow."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from tula.dataplane.nft.flow_keys import flow_key, flow_tables, fragment_key, fragment_tables
from tula.dataplane.nft.recover import counts_by_id
from tula.dataplane.nft.ruleset import MapName
from tula.engine.store import Memory
from tula.kernel.announce import Announcer
from tula.kernel.network import Network
from tula.kernel.nftables import NewerTableError, Nftables
from tula.kernel.probe_route import ProbeRoute
from tula.kernel.sysctls import Sysctls
from tula.kernel.tunnels import TunnelAdapter
from tula.model.config import Config, Forwarding, IPAddress
from tula.model.count import Count
from tula.model.ids import backend_id, split_id
from tula.plan.reach import backend_addresses, plan_reach
from tula.plan.trace import Entry, Flow
from tula.plan.tunnels import Outer


@dataclass(frozen=True, slots=True)
class TableUse:
    """One table that packets fill; ``entries`` is None where the kernel does not tell."""

    name: str
    entries: int | None
    size: int


@dataclass(frozen=True, slots=True)
class Adapters:
    """The kernel as the balancer sees it; fakes in tests."""

    nftables: Nftables
    network: Network
    announcer: Announcer
    tunnels: TunnelAdapter
    probe_route: ProbeRoute
    sysctls: Sysctls


class Remembers(Protocol):
    """What knows the ids in use and the counts of what left the kernel."""

    def memory(self) -> Memory:
        """Raises StateError."""


class Reader:
    """Reads for one network namespace and one state directory; changes nothing.

    Methods raise KernelError and StateError.
    """

    def __init__(self, kernel: Adapters, memory: Remembers) -> None:
        self._kernel = kernel
        self._remembers = memory

    def _memory(self) -> Memory:
        return self._remembers.memory()

    def backend_counts(self, config: Config) -> dict[tuple[str, str], Count]:
        """Packets and bytes by (service, Backend.key), those of earlier tables included."""
        memory = self._memory()
        totals = {
            (service, key): count
            for service, keys in memory.past.items()
            for key, count in keys.items()
        }
        live = counts_by_id(self._kernel.nftables.counts())
        ids = memory.ids
        for service in config.services:
            for backend in service.backends:
                if service.name not in ids.services or backend.key not in ids.backends:
                    continue
                mark = backend_id(ids.services[service.name], ids.backends[backend.key])
                if mark in live:
                    key = (service.name, backend.key)
                    totals[key] = totals.get(key, Count()) + live[mark]
        return totals

    def known_counts(self, config: Config) -> dict[tuple[str, str], Count]:
        """The same; nothing of a table that is of a newer Tula, so that all else can be told."""
        try:
            return self.backend_counts(config)
        except NewerTableError:
            return {}

    def outers(self, config: Config) -> Mapping[IPAddress, Outer]:
        """Between which addresses the tunnels are, by where they end."""
        if all(service.forwarding is Forwarding.L2 for service in config.services):
            return {}
        host = self._kernel.network.view(backend_addresses(config))
        return plan_reach(config, host, force=True).outers

    def flow_tables(self) -> list[TableUse]:
        """How full the tables of connections are."""
        nftables = self._kernel.nftables
        found = nftables.entries() if nftables.exists() else {}
        parsed = ((MapName.parse(name), entries) for name, entries in sorted(found.items()))
        return [
            TableUse(name.kind.value, entries, name.size)
            for name, entries in parsed
            if name is not None and name.kind.dynamic and not name.kind.hot
        ]

    def held(self, limit_seconds: float) -> dict[int, int] | None:
        """How many connections each backend id holds; None when counting takes longer."""
        nftables = self._kernel.nftables
        return nftables.held(limit_seconds) if nftables.exists() else {}

    def find_entry(self, flow: Flow, datagram: int | None = None) -> Entry | None:
        """What the kernel holds for a flow, or for one datagram's fragments by its id."""
        nftables = self._kernel.nftables
        present = nftables.entries() if nftables.exists() else {}
        if datagram is None:
            tables, key = flow_tables(flow, present), flow_key(flow)
        else:
            tables, key = fragment_tables(flow, present), fragment_key(flow, datagram)
        marks = (nftables.mark_of(table, key) for table in tables)
        mark = next((mark for mark in marks if mark is not None), None)
        if mark is None:
            return None
        service, backend = split_id(mark)
        ids = self._memory().ids
        services = {number: name for name, number in ids.services.items()}
        backends = {number: key for key, number in ids.backends.items()}
        return Entry(services.get(service, ""), backends.get(backend, ""))

    def generation(self) -> int:
        """nftables' generation: any change raises it."""
        return self._kernel.nftables.generation()

    def named_counts(self) -> dict[str, Count]:
        """What the data path counts as a whole, such as packets without a backend."""
        nftables = self._kernel.nftables
        return nftables.named_counts() if nftables.exists() else {}
