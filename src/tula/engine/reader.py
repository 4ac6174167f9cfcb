"""What one machine's data path tells of the services: counts, tables, the backend of a flow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from tula.dataplane.port import DataPath, Memory
from tula.engine.store import Remembered, Store
from tula.kernel.network import Network
from tula.kernel.probe_route import ProbeRoute
from tula.kernel.sysctls import Sysctls
from tula.model.bgp import BgpSessionState
from tula.model.client_scopes import (
    ClientScope,
    HeldClient,
    HeldClients,
    client_scopes,
    scope_of,
)
from tula.model.config import Config, Forwarding, IPAddress, OnDown
from tula.model.desired import TunnelEndpoints
from tula.model.flow import Flow, FlowEntry
from tula.model.health import BackendName, BackendStatus
from tula.model.host import HostView
from tula.model.stats import BackendKey, Count, Stats
from tula.plan.pools import kept_while_down
from tula.plan.routes import backend_addresses, plan_routes
from tula.plan.trace import Trace, find_service, plan_trace
from tula.vip.owner import VipOwners


@dataclass(frozen=True, slots=True)
class Adapters:
    """The machine as the engine sees it; fakes in tests."""

    path: DataPath
    network: Network
    vips: VipOwners
    probe_route: ProbeRoute
    sysctls: Sysctls


class Reader:
    """Reads for one network namespace and one state directory; changes nothing.

    Methods raise KernelError and StateError.
    """

    def __init__(self, adapters: Adapters, store: Store) -> None:
        self._adapters = adapters
        self._path = adapters.path
        self._network = adapters.network
        self._vips = adapters.vips
        self._store = store

    def _remembered(self) -> Remembered:
        return self._store.remembered()

    def _memory(self) -> Memory:
        return self._path.recall(self._remembered().path)

    def stats(self) -> Stats:
        """What is counted, with what was counted in what is gone."""
        found = self._path.stats(self._memory())
        totals: dict[BackendKey, Count] = {
            (service, key): count
            for service, keys in self._remembered().retired.items()
            for key, count in keys.items()
        }
        for name, count in found.backends.items():
            totals[name] = totals.get(name, Count()) + count
        return replace(found, backends=totals)

    def revision(self) -> int:
        """The data path's; any change by anyone makes it another."""
        return self._path.revision()

    def host(self) -> HostView:
        """This machine's links and addresses, without routes."""
        return self._network.view(())

    def bgp_sessions(self, config: Config) -> list[BgpSessionState]:
        """The BGP sessions as the speaker says; none when it does not run."""
        return self._vips.sessions() if config.high_availability.bgp is not None else []

    def endpoints(self, config: Config) -> Mapping[IPAddress, TunnelEndpoints]:
        """Between which addresses the tunnels are, by the backends' endpoints."""
        if all(service.forwardings == {Forwarding.L2} for service in config.services):
            return {}
        host = self._network.view(backend_addresses(config))
        return plan_routes(config, host, force=True).endpoints

    def connections(
        self, limit: float, empty: Collection[BackendKey] = ()
    ) -> Mapping[BackendKey, int] | None:
        """How many connections each backend holds; None when counting takes longer. See
        ``DataPath.connections`` for ``empty``."""
        return self._path.connections(self._memory(), limit, empty)

    def find_entry(self, flow: Flow, datagram: int | None = None) -> FlowEntry | None:
        """What the kernel holds for a flow, or for one datagram's fragments by its id."""
        return self._path.look_up(flow, self._memory(), datagram)

    def find_client(self, config: Config, flow: Flow) -> HeldClient | None:
        """What persistence holds for a flow's client."""
        found = find_service(config, flow)
        if found is None or found[0].persistence is None:
            return None
        scope = scope_of(client_scopes(config.services), found[0].name)
        if scope is None:
            return None
        return self._path.look_up_client(scope, flow.client, self._memory())

    def clients(
        self, scopes: Sequence[ClientScope], client: IPAddress | None, limit: int
    ) -> HeldClients:
        """The persistent clients of these scopes, or the entries of one; at most ``limit`` of
        each scope."""
        if client is None:
            return self._path.clients(scopes, self._memory(), limit)
        memory = self._memory()
        asked = [scope for scope in scopes if client.version in scope.versions]
        found = (self._path.look_up_client(scope, client, memory) for scope in asked)
        return HeldClients(tuple(entry for entry in found if entry is not None))

    def forget_clients(self, scopes: Sequence[ClientScope], client: IPAddress | None) -> int | None:
        """Forgets one persistent client, or all. How many entries that were, if that is known."""
        return self._path.forget_clients(scopes, client, self._memory())

    def missing(self, config: Config) -> frozenset[BackendName]:
        """The backends of services with monitors that the kernel was left without, or with their
        flows alone and nobody's will (``on_down: keep``): they were down when the daemon before
        ended. Nothing if there is no data path."""
        checked = {
            (service.name, backend.key): (service.name, backend.name)
            for service in config.services
            if service.health
            for backend in service.backends
        }
        memory, found = self._memory(), self._path.observe()
        left_out = frozenset(checked[name] for name in found.left_out(checked, memory))
        if all(service.on_down is OnDown.RESET for service in config.services):
            return left_out
        refusing = frozenset(checked[name] for name in found.refusing(checked, memory))
        return left_out | kept_while_down(config, refusing, self._store.overrides())

    def serving(self, config: Config) -> frozenset[BackendName]:
        """The backends that the kernel sends packets to. Raises KernelError."""
        names = {
            (service.name, backend.key): (service.name, backend.name)
            for service in config.services
            for backend in service.backends
        }
        found = self._path.observe().serving(names, self._memory())
        return frozenset(names[name] for name in found)

    def trace(
        self,
        config: Config,
        flow: Flow,
        entry: FlowEntry | None = None,
        *,
        later_fragment: bool = False,
        held: HeldClient | None = None,
        statuses: Mapping[BackendName, BackendStatus] | None = None,
    ) -> Trace:
        """Where a flow goes by a configuration with the weights that count, and by entries."""
        return plan_trace(
            config,
            flow,
            self._path.choose,
            entry,
            later_fragment=later_fragment,
            held=held,
            statuses=statuses,
        )
