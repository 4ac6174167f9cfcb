"""How services and backends stand: states and counts, as ``tula status`` shows them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from tula.engine.bgp_view import describe_bgp
from tula.engine.control import DaemonFacts
from tula.engine.kernel_state import KernelState
from tula.engine.peer_facts import BalancerFacts
from tula.engine.peer_view import flow_counts
from tula.engine.persistent_view import Persistent
from tula.engine.rates import Rate, Rates
from tula.engine.summary import summarize
from tula.engine.tunnel_view import Tunnels
from tula.model.bgp import BgpSessionState
from tula.model.config import (
    Backend,
    Config,
    IPAddress,
    VirtualService,
)
from tula.model.desired import TunnelEndpoints
from tula.model.health import BackendName, BackendStatus, Health, State
from tula.model.stats import (
    BackendKey,
    Count,
    Refused,
    TableUse,
    is_estimate,
    refused_packets,
)
from tula.plan.pools import serves_by_backups


def describe_status(
    config: Config,
    counts: Mapping[tuple[str, str], Count],
    named: Mapping[str, Count],
    tables: Iterable[TableUse] = (),
    endpoints: Mapping[IPAddress, TunnelEndpoints] | None = None,
    *,
    statuses: Mapping[BackendName, BackendStatus] | None = None,
    findings: Mapping[BackendName, Health] | None = None,
    connections: Mapping[BackendName, int] | None = None,
    panics: Collection[str] = (),
    daemon: DaemonFacts | None = None,
    kernel: KernelState | None = None,
    rates: Rates | None = None,
    no_backend: Mapping[str, Count] | None = None,
    refused: Refused | None = None,
    bgp: Iterable[BgpSessionState] = (),
    balancers: BalancerFacts | None = None,
) -> dict[str, Any]:
    """The answer of ``tula status --json``.

    ``counts`` are by (service, Backend.key); ``named`` are those of the data path as a whole,
    such as packets that came for a service without a backend, which ``no_backend`` has by service,
    and ``refused`` those that were not let in;
    ``endpoints`` by ``outer_address``; ``bgp`` are the sessions that the BGP speaker knows.

    The rest is known only to the daemon: ``connections`` of each backend (none where it is not
    named), None while they are not counted; ``panics``: the services whose backends all serve,
    since too few are up. ``rates`` are None while there is no earlier reading.
    """
    tunnels = Tunnels(config.tunnels, endpoints or {})
    live = _Live(statuses or {}, findings or {}, connections)
    by_service: dict[str, Count] = {}
    for (service, _), count in counts.items():
        by_service[service] = by_service.get(service, Count()) + count
    clients = Persistent(config, tables := tuple(tables))
    state = kernel if kernel is not None else KernelState(("not compared",))
    answer: dict[str, Any] = {
        "services": [
            _service(service, total := by_service.get(service.name, Count()))
            | {"no_backend": (no_backend or {}).get(service.name, Count()).packets}
            | refused_packets(refused or {}, service.name)
            | {"left": asdict(_left(service, total, counts))}
            | {"rates": _service_rates(service, rates)}
            | {"panic": service.name in panics}
            | {"on_backups": serves_by_backups(service, statuses or {})}
            | {"persistence": clients.describe(service)}
            | {
                "backends": [
                    _backend(service, backend, counts.get((service.name, backend.key), Count()))
                    | {"rates": _rates(rates, (service.name, backend.key))}
                    | live.describe(service, backend)
                    | {"tunnel": tunnels.describe(service, backend)}
                    for backend in service.backends
                ]
            }
            for service in config.services
        ],
        "counters": {
            name: {"packets": count.packets, "bytes": count.bytes}
            for name, count in sorted(named.items())
        },
        "connections": {
            table.name: {"entries": table.entries, "size": table.size} for table in tables
        },
        **_balancers(balancers if daemon is None else daemon.balancers, named),
        "bgp": describe_bgp(config, bgp),
        "configuration": None if daemon is None else _configuration(daemon),
        "kernel": _kernel(state, daemon),
        "daemon": None if daemon is None else _daemon(daemon),
        "problems": [
            *(state.problems if daemon is None else daemon.problems),
            *clients.problems(),
        ],
        "notify": [] if daemon is None else [each.describe() for each in daemon.notify],
    }
    summary = summarize(answer)
    return answer | {"summary": {"fine": summary.fine, "text": summary.text}}


def _balancers(found: BalancerFacts | None, named: Mapping[str, Count]) -> dict[str, Any]:
    return replace(found or BalancerFacts(), flows=flow_counts(named)).describe()


def _service(service: VirtualService, total: Count) -> dict[str, Any]:
    return {
        "name": service.name,
        "vips": [str(vip) for vip in service.vips],
        "protocols": [str(protocol) for protocol in service.protocols],
        "ports": [str(ports) for ports in service.ports] or ["any"],
        "forwarding": str(service.forwarding),
        "scheduler": str(service.scheduler),
        "path": "nftables",
        "checked": bool(service.health),
        "minimum": service.minimum,
        "packets": total.packets,
        "bytes": total.bytes,
    }


def _left(service: VirtualService, total: Count, counts: Mapping[BackendKey, Count]) -> Count:
    """What backends counted that the service no longer has: with it, its sum is its total."""
    listed = {(service.name, backend.key) for backend in service.backends}
    found = sum((counts.get(key, Count()) for key in listed), Count())
    return Count(total.packets - found.packets, total.bytes - found.bytes)


def _rates(rates: Rates | None, key: BackendKey) -> dict[str, float | None] | None:
    if rates is None:
        return None
    rate = rates.get(key, Rate(0.0, 0.0))
    return _describe_rate(rate)


def _service_rates(service: VirtualService, rates: Rates | None) -> dict[str, float | None] | None:
    if rates is None:
        return None
    keys = [(service.name, key) for key in {backend.key for backend in service.backends}]
    found = [rates[key] for key in keys if key in rates]
    packets, octets = sum(rate.packets for rate in found), sum(rate.bytes for rate in found)
    return _describe_rate(Rate(packets, octets))


def _describe_rate(rate: Rate) -> dict[str, float | None]:
    # The rules count no new flows: it would cost every one of them.
    return {"packets": round(rate.packets, 3), "bytes": round(rate.bytes, 3), "new_flows": None}


@dataclass(frozen=True, slots=True)
class _Live:
    """What only the daemon knows of backends; without it, what the configuration says."""

    statuses: Mapping[BackendName, BackendStatus]
    findings: Mapping[BackendName, Health]
    connections: Mapping[BackendName, int] | None

    def describe(self, service: VirtualService, backend: Backend) -> dict[str, Any]:
        name = (service.name, backend.name)
        # Nothing checks health without the daemon: in service, but unknown.
        state = State.UNKNOWN if backend.weight else State.DRAINING
        status = self.statuses.get(name, BackendStatus(state, backend.weight, present=True))
        finding = self.findings.get(name)
        return {
            "state": str(status.state),
            "reason": status.reason,
            "since": finding.since if finding is not None else None,
            "effective_weight": status.weight,
            "serving": status.weight > 0,
            "connections": None if self.connections is None else self.connections.get(name, 0),
            "connections_estimated": is_estimate(self.connections, name),
            "warning": finding.warning if finding is not None else "",
        }


def _backend(service: VirtualService, backend: Backend, count: Count) -> dict[str, Any]:
    addresses = backend.texts
    return {
        "name": backend.name,
        "address": addresses[0] if len(addresses) == 1 else list(addresses),
        "weight": backend.weight,
        "backup": backend.backup,
        "forwarding": str(service.forwarding_of(backend)),
        "packets": count.packets,
        "bytes": count.bytes,
    }


def _configuration(facts: DaemonFacts) -> dict[str, Any]:
    return {
        "digest": facts.digest,
        "accepted": facts.accepted_at,
        "file": str(facts.file),
        "source": facts.source,
        "file_differs": facts.differs_since is not None
        or facts.refused is not None
        or bool(facts.deferred),
        "file_differs_since": facts.differs_since,
        "confirm_until": facts.confirm_until,
        "confirm_everywhere": facts.confirm_everywhere,
    }


def _kernel(state: KernelState, facts: DaemonFacts | None) -> dict[str, Any]:
    cycle = None if facts is None else facts.last_cycle
    failed = [cycle.error] if cycle is not None and cycle.error else []
    return {
        "in_sync": state.in_sync and not failed,
        "differences": [*failed, *state.differences],
        "forwards": state.forwards,
        "compared": state.compared,
        "interfaces": None if state.interfaces is None else dict(state.interfaces),
    }


def _daemon(facts: DaemonFacts) -> dict[str, Any]:
    refused, cycle = facts.refused, facts.last_cycle
    return {
        "pid": facts.pid,
        "version": facts.version,
        "started": facts.started,
        "configuration": {
            "path": str(facts.file),
            "accepted_at": facts.accepted_at,
            "refused": None
            if refused is None
            else {"since": refused.since, "problems": [asdict(p) for p in refused.problems]},
        },
        "problems": list(facts.problems),
        "network": {
            "listening": list(facts.network.listening),
            "fingerprint": facts.network.fingerprint or None,
        },
        "last_cycle": None
        if cycle is None
        else {
            "time": cycle.time,
            "seconds": cycle.seconds,
            "outcome": str(cycle.outcome),
            "error": cycle.error or None,
            "reaction": cycle.reaction,
        },
    }
