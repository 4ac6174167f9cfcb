"""Whether this machine fits the configuration and has what a balancer needs. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tula.doctor import fixes
from tula.doctor.observation import Observation, Usage
from tula.doctor.requests import Responses
from tula.engine.persistent_view import full_table, scope_uses
from tula.model.config import Forwarding
from tula.model.finding import HERE, Finding, Severity
from tula.model.host import Route
from tula.model.wording import counted
from tula.plan.cautions import down_interface
from tula.plan.probe_sysctls import plan_probe_sysctls, unmet_requirements
from tula.plan.tunnels import outer_address
from tula.plan.unchecked import FIX, describe_unchecked

_MIN_NFT = (1, 0, 6)
_SHOWN = 3
"""Lines of a plan that are shown."""
_NEARLY_FULL = 0.9
_FAMILIES = {4: "ipv4", 6: "ipv6"}
_MORE_CLIENTS = "raise connections.size in the configuration, or shorten persistence.timeout"
_LARGER_TABLE = "raise connections.size in the configuration, or lower connections.tcp or udp"


def check_interfaces(observed: Observation, _: Responses) -> Iterator[Finding]:
    """The interfaces exist and are up."""
    for name in dict.fromkeys([*observed.config.interfaces, *observed.interfaces]):
        if name not in observed.host.links:
            here = ", ".join(sorted(set(observed.host.links) - {"lo"})) or "none"
            yield Finding(
                "interface-missing", Severity.ERROR, name,
                f"this machine has no interface {name}; it has: {here}",
                "correct the name under interfaces, or install the network card",
            )  # fmt: skip
            continue
        state = observed.links.get(name)
        if state is None or (state.up and state.carrier):
            continue
        if not state.up:
            yield _down(name)
            continue
        yield Finding(
            "interface-down", Severity.ERROR, name,
            f"{name} has no carrier", "check the cable at both ends",
        )  # fmt: skip


def check_network(observed: Observation, _: Responses) -> Iterator[Finding]:
    """What apply warns of, or refuses, because of this machine's network."""
    for caution in observed.routes.cautions:
        if caution.id != "interface-down":  # see check_interfaces
            yield Finding(
                caution.id, Severity.ERROR if caution.severe else Severity.WARNING,
                caution.interface, caution.evidence, caution.fix, commands=caution.commands,
            )  # fmt: skip


def _down(name: str) -> Finding:
    return Finding(
        "interface-down", Severity.ERROR, name, f"{name} is down", f"set {name} up",
        commands=(f"ip link set {name} up",),
    )  # fmt: skip


def check_routes(observed: Observation, _: Responses) -> Iterator[Finding]:
    """Every backend has a route that its forwarding method can use."""
    for service in observed.config.services:
        for backend in service.backends:
            if observed.routes.serves_here(backend):
                continue
            l3 = service.forwarding_of(backend) is Forwarding.L3
            addresses = [a for a in backend.addresses if a.version in service.versions]
            for address in [outer_address(backend)] if l3 else addresses:
                route = observed.host.routes.get(address, Route("none"))
                if down := down_interface(address, observed.host):
                    yield _down(down)
                elif route.kind != "unicast":
                    yield Finding(
                        "no-route", Severity.ERROR, backend.name,
                        f"no route to {address}",
                        "add a route, or correct the backend's address",
                    )  # fmt: skip
                elif route.gateway is not None and not l3:
                    yield Finding(
                        "off-link", Severity.ERROR, backend.name,
                        f"{address} is behind the router {route.gateway}: forwarding l2 rewrites "
                        "MAC addresses, and reaches its own subnet only",
                        "use an address of the same subnet, or forwarding: l3",
                    )  # fmt: skip


def check_load_balancers(observed: Observation, _: Responses) -> Iterator[Finding]:
    """Backends accept tunnels from ``load_balancers`` only, so this machine must be listed."""
    known = {address for _, address in observed.config.load_balancers}
    if not known:
        return
    outers = observed.routes.endpoints.values()
    unlisted = sorted({str(outer.local) for outer in outers} - set(map(str, known)))
    l3 = any(Forwarding.L3 in s.forwardings for s in observed.config.services)
    if unlisted or not known & observed.addresses:
        listed = ", ".join(map(str, sorted(known, key=str)))
        what = (
            f"sends tunnel packets from {', '.join(unlisted)}" if unlisted else "has none of them"
        )
        yield Finding(
            "not-a-load-balancer", Severity.ERROR if l3 else Severity.WARNING, HERE,
            f"load_balancers are {listed}, and this machine {what}"
            + ("; backends drop packets of its tunnels" if l3 else ""),
            "add this machine's address to load_balancers on all machines, and run tula backend "
            "join on the backends again",
        )  # fmt: skip


def check_source_addresses(observed: Observation, _: Responses) -> Iterator[Finding]:
    """Requests need a source address that is no VIP: the replies must come back to this machine."""
    for version in (4, 6):
        vips = sorted(str(vip) for vip in observed.vips if vip.version == version)
        if vips and observed.sources.to(None, version) is None:
            yield Finding(
                "no-source-address", Severity.NOTE, HERE,
                f"backends were not tested for {', '.join(vips[:_SHOWN])}: this machine has no "
                f"other IPv{version} address to send from",
                f"give it an IPv{version} address to have them tested; clients do not need it",
            )  # fmt: skip


def check_kernel_state(observed: Observation, _: Responses) -> Iterator[Finding]:
    """The kernel holds what the configuration says."""
    for owned in observed.routes.held if observed.has_table else ():
        if owned.address not in observed.addresses:
            yield Finding(
                "vip-not-held", Severity.ERROR, owned.interface,
                f"the configuration announces the VIP {owned.address}, and this machine does not "
                "have it",
                "apply the configuration", commands=fixes.apply(observed.options),
            )  # fmt: skip
    if not observed.pending:
        return
    changes = "; ".join(observed.pending[:_SHOWN])
    more = len(observed.pending) - _SHOWN
    changes += f"; and {more} more" if more > 0 else ""
    id_ = "not-applied"
    if not observed.has_table:
        evidence = "the kernel holds nothing of Tula's"
    elif not observed.applied:
        evidence = f"another configuration is applied; this one would change: {changes}"
    else:
        id_ = "drift"
        evidence = f"out of sync: something else changed Tula's objects; apply would: {changes}"
    yield Finding(
        id_, Severity.ERROR, HERE, evidence, "apply the configuration",
        commands=fixes.apply(observed.options),
    )  # fmt: skip


def check_support(observed: Observation, _: Responses) -> Iterator[Finding]:
    """The kernel and nft have what the configuration needs."""
    for problem in observed.unsupported:
        service = str(problem.path[1]) if len(problem.path) > 1 else HERE
        yield Finding(
            "kernel-lacks", Severity.ERROR, HERE, f"{service}: {problem.message}",
            "use a tunnel that it supports, or a kernel that supports this one",
        )  # fmt: skip
    if observed.nft is None or observed.nft < _MIN_NFT:
        found = ".".join(map(str, observed.nft)) if observed.nft else "none"
        needed = ".".join(map(str, _MIN_NFT))
        yield Finding(
            "kernel-lacks", Severity.ERROR, HERE,
            f"nftables {needed} or newer is needed; this machine has {found}",
            "install nftables", commands=("apt-get install -y nftables",),
        )  # fmt: skip


def check_saved_rulesets(observed: Observation, _: Responses) -> Iterator[Finding]:
    """``nft list ruleset`` shows Tula's tables too, and nft does not load them: the one has keys
    without types (1.0.6), the other belongs to the daemon."""
    for file, tables in observed.saved_tables.items():
        named = " and ".join(f"table {name}" for name in tables)
        yield Finding(
            "saved-ruleset", Severity.WARNING, HERE,
            f"{file} contains {named}, with which nft refuses the whole file: a restart of "
            "nftables.service leaves this machine without any of the rules in it",
            f"delete {named} from {file}: Tula makes its tables by itself. Save others by name, "
            "with nft list table",
        )  # fmt: skip


def check_reverse_path(observed: Observation, _: Responses) -> Iterator[Finding]:
    """While a daemon probes backends through their VIPs, the replies must be accepted here.

    Clients' packets are forwarded before reverse-path filtering, which only packets for this
    machine itself meet (fib_validate_source, fib_frontend.c).
    """
    if not observed.has_daemon:
        return
    wanted = plan_probe_sysctls(observed.probe_needs, observed.sysctls, observed.host.links)
    commands = tuple(f"sysctl -w {name}={value}" for name, value in wanted.items())
    for interface in unmet_requirements(observed.probe_needs, observed.sysctls):
        yield Finding(
            "rp-filter", Severity.WARNING, interface,
            f"rp_filter or accept_local drops replies to health checks from IPv4 VIPs on "
            f"{interface}: backends there are not checked",
            "set what the daemon could not set (is /proc/sys read-only?)",
            commands=commands,
        )  # fmt: skip


def check_flow_tables(observed: Observation, _: Responses) -> Iterator[Finding]:
    """New flows go by hash alone when a flow table is full, and may move later."""
    for use in scope_uses(observed.config, observed.flow_tables):
        for version in use.full:
            yield Finding(
                "clients-full", Severity.WARNING, HERE, full_table(use, version), _MORE_CLIENTS,
            )  # fmt: skip
    if observed.clients_full and not any(t.entries is not None for t in observed.flow_tables):
        yield Finding(
            "clients-full", Severity.WARNING, HERE,
            f"{counted(observed.clients_full, 'packet')} of new clients found the table of "
            "persistent clients full; this kernel does not report how full it is now",
            _MORE_CLIENTS,
            certain=False,
        )  # fmt: skip
    for table in (each for each in observed.flow_tables if not each.scope):
        if table.entries is not None and table.entries >= _NEARLY_FULL * table.size:
            yield Finding(
                "table-full", Severity.WARNING, HERE,
                f"the flow table {table.name} holds {table.entries} of {table.size} entries",
                _LARGER_TABLE,
            )  # fmt: skip
    tables = observed.flow_tables
    unknown = bool(tables) and all(table.entries is None for table in tables)
    if unknown and observed.table_full:
        yield Finding(
            "table-full", Severity.WARNING, HERE,
            f"{counted(observed.table_full, 'packet')} found a flow table full; this kernel does "
            "not report how full they are now",
            _LARGER_TABLE,
            certain=False,
        )  # fmt: skip


def check_health_checks(observed: Observation, _: Responses) -> Iterator[Finding]:
    """It may be intended, where somebody else takes backends out; so it is a note."""
    unchecked = describe_unchecked(observed.config)
    if unchecked:
        yield Finding("no-health-checks", Severity.NOTE, HERE, unchecked, FIX)


def check_neighbour_tables(observed: Observation, _: Responses) -> Iterator[Finding]:
    """At gc_thresh3 no new neighbour is learned: packets to backends and clients are lost."""
    for version, usage in sorted(observed.neighbours.items()):
        limits = {3: usage.limit, 2: usage.soft_limit}
        near = [n for n, limit in limits.items() if limit and usage.used >= _NEARLY_FULL * limit]
        if not near:
            continue
        base = f"net.{_FAMILIES[version]}.neigh.default.gc_thresh"
        most = max(usage.limit, usage.used) * 4
        yield Finding(
            "neighbour-table", Severity.WARNING if near[0] == 3 else Severity.NOTE, HERE,
            f"the IPv{version} neighbour table holds {usage.used} entries; gc_thresh{near[0]} is "
            f"{limits[near[0]]}",
            "raise gc_thresh1 to gc_thresh3, in /etc/sysctl.d too",
            commands=(f"sysctl -w {base}1={most // 4} {base}2={most // 2} {base}3={most}",),
        )  # fmt: skip


def check_conntrack(observed: Observation, _: Responses) -> Iterator[Finding]:
    """Forwarded packets are not tracked; this machine's own are dropped when the table is full."""
    usage: Usage | None = observed.conntrack
    if usage is not None and usage.limit and usage.used >= _NEARLY_FULL * usage.limit:
        yield Finding(
            "conntrack-full", Severity.WARNING, HERE,
            f"connection tracking holds {usage.used} of {usage.limit} entries",
            "raise net.netfilter.nf_conntrack_max, or exempt traffic from tracking (notrack)",
            commands=(f"sysctl -w net.netfilter.nf_conntrack_max={usage.limit * 4}",),
        )  # fmt: skip
