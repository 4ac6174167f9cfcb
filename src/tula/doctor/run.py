"""One run of the doctor: observe the machine, send requests, check the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

from tula.doctor.adverts import Advert, parse_advert
from tula.doctor.backend_state import BackendState, observe_backend
from tula.doctor.backend_tunnels import (
    check_filter,
    check_tunnel_devices,
    check_tunnel_reverse_path,
)
from tula.doctor.backend_vips import (
    check_arp_sysctls,
    check_default_route,
    check_firewall,
    check_listeners,
    check_vips,
)
from tula.doctor.balancer import (
    check_conntrack,
    check_flow_tables,
    check_health_checks,
    check_interfaces,
    check_kernel_state,
    check_load_balancers,
    check_neighbour_tables,
    check_network,
    check_reverse_path,
    check_routes,
    check_saved_rulesets,
    check_source_addresses,
    check_support,
)
from tula.doctor.bgp import check_routers, check_vip_table
from tula.doctor.chains import check_chains, check_programs, dropped_at_egress
from tula.doctor.engines import check_engines, check_priorities
from tula.doctor.flows import check_flows, requests_for_peers
from tula.doctor.forwarders import check_forwarders
from tula.doctor.neighbours import (
    check_arp_senders,
    check_resolution,
    check_return_traffic,
    check_vip_owners,
    requests_for_backends,
    requests_for_vips,
)
from tula.doctor.notifications import check_notifications
from tula.doctor.observation import Observation
from tula.doctor.own_filters import check_own_filters
from tula.doctor.packets import ECHO
from tula.doctor.path_mtu import check_path_mtu, smaller_requests
from tula.doctor.peers import check_peers
from tula.doctor.reachability import vip_answers
from tula.doctor.requests import Exchange, Request, Responses, TunnelPath
from tula.doctor.serving import check_target, over_path_requests
from tula.doctor.targets import Target, first_requests, limit_targets, plan_targets
from tula.doctor.vrrp import check_adverts, check_vrrp_vips
from tula.kernel.advert_listener import AdvertListener
from tula.kernel.packet_sockets import KernelPacketSockets, PacketSockets
from tula.model.config import IPAddress
from tula.model.finding import HERE, Finding, Severity
from tula.model.wording import counted

_LISTEN = 1.0
"""Seconds in which answers to clients that pass through here would be seen."""

BalancerCheck = Callable[[Observation, Responses], Iterable[Finding]]
BackendCheck = Callable[[Observation, BackendState], Iterable[Finding]]

_BALANCER_CHECKS: Sequence[tuple[str, BalancerCheck]] = (
    ("interfaces", check_interfaces),
    ("routes to backends", check_routes),
    ("what this machine's network does to the configuration", check_network),
    ("load_balancers", check_load_balancers),
    ("source addresses for the tests", check_source_addresses),
    ("kernel and nft versions", check_support),
    ("the kernel's state against the configuration", check_kernel_state),
    ("who answers ARP and neighbour discovery for VIPs", check_vip_owners),
    ("who sends ARP requests from VIPs", check_arp_senders),
    ("who answers for backends and balancers", check_resolution),
    ("the MAC addresses of balancers that forward here", check_forwarders),
    ("whether answers pass through here", check_return_traffic),
    ("whether services have health checks", check_health_checks),
    ("whether notifications arrive", check_notifications),
    ("reverse-path filters for health checks", check_reverse_path),
    ("flow tables", check_flow_tables),
    ("neighbour tables", check_neighbour_tables),
    ("connection tracking", check_conntrack),
    ("foreign nftables chains", check_chains),
    ("saved rulesets", check_saved_rulesets),
    ("foreign programs on interfaces", check_programs),
)
CLUSTER_CHECKS: Sequence[tuple[str, BalancerCheck]] = (
    ("VRRP's adverts, from whom and to whom", check_adverts),
    ("who has the VIPs of VRRP", check_vrrp_vips),
    ("engines that announce VIPs", check_engines),
    ("VRRP's priorities", check_priorities),
    ("routers: BGP's sessions, BFD, routes that they were told", check_routers),
    ("the table of VIPs for BGP", check_vip_table),
    ("whether flows are told and taken", check_flows),
    ("the other balancers: configuration, overrides, health, clock, version", check_peers),
    ("what this machine's rules drop of what balancers tell each other", check_own_filters),
)
_OWN_CHECKS: Sequence[tuple[str, BackendCheck]] = (("listening servers", check_listeners),)
_BACKEND_CHECKS: Sequence[tuple[str, BackendCheck]] = (
    ("VIPs, and on which devices", check_vips),
    ("ARP settings", check_arp_sysctls),
    ("tunnel devices", check_tunnel_devices),
    ("reverse-path filtering", check_tunnel_reverse_path),
    ("who may send into tunnels, and the MSS", check_filter),
    ("the default route", check_default_route),
    ("listening servers", check_listeners),
    ("foreign nftables chains", check_firewall),
)
"""What each tests, and the check."""

_ORDER = [Severity.ERROR, Severity.WARNING, Severity.NOTE]
_CAUSES = frozenset(
    {
        *("interface-missing", "interface-down", "interface-not-listed"),
        *("vip-as-source", "no-link-local"),
    }
)
"""Findings of this machine that others may follow from, so they come first."""


@dataclass(frozen=True, slots=True)
class Roles:
    """What this machine is; ``backends`` are its names in the configuration."""

    balancer: bool
    backends: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Report:
    """The findings, the worst first, and what was tested."""

    roles: Roles
    findings: tuple[Finding, ...]
    tested: tuple[str, ...]


def examine(observed: Observation, patience: float) -> Report:
    """Runs all tests that this machine can run. Raises KernelError.

    ``patience`` is how many seconds to wait for replies.
    """
    roles = roles_of(observed)
    findings: list[Finding] = []
    tested: list[str] = []
    if roles.balancer:
        vips = observed.vips
        with (
            KernelPacketSockets(observed.addresses - vips, vips) as sockets,
            _listen(observed) as listener,
        ):
            responses, targets = exchange(observed, sockets, patience)
            responses.adverts += _adverts(listener)
        findings += check_balancer(observed, responses, targets)
        tested += [what for what, _ in balancer_checks(observed)]
        tested.append(
            f"{counted(len(targets), 'pair')} of VIP and backend, over the path of clients' "
            "packets: ports, packet sizes"
        )
    state = observe_backend(observed) if roles.backends else None
    if state is not None:
        # A balancer that serves announces VIPs as well, and makes its own tunnels.
        for what, check in _OWN_CHECKS if roles.balancer else _BACKEND_CHECKS:
            findings += check(observed, state)
            tested.append(what)
    if not roles.balancer and not roles.backends:
        findings.append(_not_configured(observed))
    return Report(roles, tuple(sorted(_distinct(findings), key=_rank)), tuple(tested))


def roles_of(observed: Observation) -> Roles:
    """By its addresses, VIPs that Tula added, and Tula's table; otherwise by its interfaces."""
    # Every backend holds the VIPs, so they say nothing.
    own = observed.addresses - observed.vips
    listed = any(address in own for _, address in observed.config.load_balancers)
    backends = {
        backend.name: None
        for service in observed.config.services
        for backend in service.backends
        if own & set(backend.addresses) or (listed and backend.is_self)
    }
    added = any(a.ours and a.address.ip in observed.vips for a in observed.host.addresses)
    # A backend may be the balancer of another configuration, whose table is here then.
    balancer = listed or added or (observed.has_table and (observed.applied or not backends))
    if not balancer and not backends:
        balancer = any(name in observed.host.links for name in observed.config.interfaces)
    return Roles(balancer, tuple(backends))


def balancer_checks(observed: Observation) -> Sequence[tuple[str, BalancerCheck]]:
    """Those for this machine: one balancer alone has nothing to tell others."""
    return _BALANCER_CHECKS if observed.cluster is None else (*_BALANCER_CHECKS, *CLUSTER_CHECKS)


def _listen(observed: Observation) -> AbstractContextManager[AdvertListener | None]:
    """From before the first request on, so that it takes no time of its own."""
    cluster = observed.cluster
    if cluster is None or not cluster.listening:
        return nullcontext()
    state = observed.links.get(cluster.interface)
    return AdvertListener(cluster.interface) if state is None or state.up else nullcontext()


def _adverts(listener: AdvertListener | None) -> Iterator[Advert]:
    for heard in listener.heard() if listener is not None else ():
        advert = parse_advert(heard.packet, heard.outgoing, heard.at)
        if advert is not None:
            yield advert


def exchange(
    observed: Observation, sockets: PacketSockets, patience: float
) -> tuple[Responses, list[Target]]:
    """MACs first, then every target, then follow-ups where there was no answer."""
    session = Exchange(sockets, observed.config.tunnels, observed.addresses, patience)
    session.send((), [*requests_for_vips(observed), *requests_for_backends(observed)])
    targets = limit_targets(plan_targets(observed, session.responses.macs))
    first = [*first_requests(targets), *requests_for_peers(observed)]
    session.send(first, [*requests_for_vips(observed)])
    session.send(_follow_ups(observed, targets, session.responses))
    session.listen(max(_LISTEN, observed.cluster.listening if observed.cluster else 0.0))
    return session.responses, targets


def check_balancer(
    observed: Observation, responses: Responses, targets: Sequence[Target]
) -> list[Finding]:
    """Everything that can be seen from the balancer."""
    findings = [f for _, check in balancer_checks(observed) for f in check(observed, responses)]
    by_backend: dict[str, list[Target]] = {}
    for target in targets:
        by_backend.setdefault(target.backend.key, []).append(target)
    dropped = dropped_at_egress(observed)
    for of_one in by_backend.values():
        for target in of_one:
            tunnelled = isinstance(target.path, TunnelPath)
            if tunnelled or (target.interface, target.vip) not in dropped:
                findings += check_target(observed.config, target, of_one, responses)
        findings += check_path_mtu(of_one, responses)
    return findings


def _follow_ups(
    observed: Observation, targets: Iterable[Target], responses: Responses
) -> list[Request]:
    """Further requests to the targets that did not answer everything."""
    requests: list[Request] = []
    sources: dict[int, IPAddress] = {}
    for version in (4, 6):
        source = observed.sources.to(None, version)
        if source is not None:
            sources[version] = source
    for target in targets:
        unanswered = any(target.to_vip("tcp", port) not in responses.replies for port in target.tcp)
        if unanswered or not vip_answers(responses, target):
            requests += [target.to_vip(ECHO), target.to_backend(ECHO)]
            if isinstance(target.path, TunnelPath):
                requests += over_path_requests(target, sources)
        requests += smaller_requests(target, responses)
    return requests


def _distinct(findings: Iterable[Finding]) -> list[Finding]:
    """Each problem once: several VIPs and services may show the same."""
    kept: dict[tuple[object, ...], Finding] = {}
    for finding in findings:
        kept.setdefault((finding.id, finding.where, finding.evidence), finding)
    return list(kept.values())


def _rank(finding: Finding) -> tuple[int, bool, str, str]:
    is_cause = finding.id in _CAUSES
    return _ORDER.index(finding.severity), not is_cause, finding.where, finding.id


def _not_configured(observed: Observation) -> Finding:
    here = ", ".join(sorted(str(a) for a in observed.addresses if not a.is_loopback)) or "none"
    return Finding(
        "not-in-configuration", Severity.ERROR, HERE,
        f"the configuration has no address of this machine ({here}) and no interface of it",
        "run the doctor on a balancer or a backend, or correct the addresses",
    )  # fmt: skip
