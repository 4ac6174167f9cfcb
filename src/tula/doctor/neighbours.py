"""Who answers for the VIPs and the backends on the links, and who sends answers here. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tula.doctor import fixes
from tula.doctor.observation import UNUSED_ADDRESSES, Observation
from tula.doctor.requests import MacTable, NeighbourRequest, Responses
from tula.model.config import Forwarding, IPAddress
from tula.model.finding import HERE, Finding, Severity
from tula.model.host import Route
from tula.plan.tunnels import outer_address

_PROTOCOLS = {4: "ARP", 6: "neighbour discovery"}


def requests_for_backends(observed: Observation) -> Iterator[NeighbourRequest]:
    """For the MACs of all backends, load balancers and BGP routers that are on-link."""
    config = observed.config
    addresses = {a for service in config.services for b in service.backends for a in b.addresses}
    addresses |= {address for _, address in config.load_balancers} - observed.addresses
    if observed.cluster is not None and (bgp := config.high_availability.bgp) is not None:
        addresses |= {router for router, _ in bgp.routers}
    for address in sorted(addresses, key=str):
        route = observed.host.routes.get(address)
        if route is not None and _is_on_link(route):
            request = _request(observed, route.interface, address, awaited=True)
            if request is not None:
                yield request


def requests_for_vips(observed: Observation) -> Iterator[NeighbourRequest]:
    """On every interface in use, for other machines with a VIP; there should be no reply."""
    for interface in observed.interfaces:
        for vip in sorted(observed.vips, key=str):
            request = _request(observed, interface, vip, awaited=False)
            if request is not None:
                yield request


def _request(
    observed: Observation, interface: str, target: IPAddress, *, awaited: bool
) -> NeighbourRequest | None:
    """None if the interface has no MAC or is down, or this machine has no address to send from."""
    link = observed.host.links.get(interface)
    state = observed.links.get(interface)
    if link is None or len(link.mac) != 6 or (state is not None and not state.up):
        return None
    source = _source(observed, interface, target)
    if source is None:
        return None
    return NeighbourRequest(interface, link.mac, source, target, awaited)


def _source(observed: Observation, interface: str, target: IPAddress) -> IPAddress | None:
    """An address of the interface, one of the target's subnet before others."""
    own = [
        held.address
        for held in observed.host.addresses
        if held.interface == interface
        and held.address.version == target.version
        and held.address.ip not in observed.vips
    ]
    near = [each.ip for each in own if target in each.network]
    if near or own:
        return (near or [each.ip for each in own if not each.ip.is_link_local] or [own[0].ip])[0]
    return observed.sources.to(None, target.version)


def _is_on_link(route: Route) -> bool:
    return route.kind == "unicast" and route.gateway is None


def check_vip_owners(observed: Observation, responses: Responses) -> Iterator[Finding]:
    """No machine but this one may answer for a VIP."""
    known = _names_by_mac(observed, responses.macs)
    ours = {link.mac for link in observed.host.links.values()}
    backends = {b.name for service in observed.config.services for b in service.backends}
    for (interface, address), macs in sorted(responses.macs.items(), key=str):
        if address not in observed.vips:
            continue
        others = sorted(macs - ours)
        others = [mac for mac in others if not _may_have(observed, address, mac, responses)]
        for mac in [mac for mac in others if known.get(mac) in backends]:
            yield _announced(interface, address, mac, known[mac])
        strangers = [mac for mac in others if known.get(mac) not in backends]
        if not strangers:
            continue
        if len(strangers) > 1:
            yield _duplicate(interface, address, strangers, known)
        elif address in observed.addresses or _is_announced(observed, address):
            yield _conflict(interface, address, strangers[0], known)
        # Otherwise the VIP is at another machine now, as with VRRP, and only routed here.


def _may_have(observed: Observation, vip: IPAddress, mac: bytes, responses: Responses) -> bool:
    """Whether it is another balancer's, and the VIP moves between them: see check_vrrp_vips."""
    cluster = observed.cluster
    if cluster is None or vip not in cluster.vips:
        return False
    return cluster.is_virtual(mac) or any(
        mac in macs for (_, address), macs in responses.macs.items() if address in cluster.names
    )


def check_arp_senders(observed: Observation, responses: Responses) -> Iterator[Finding]:
    """No backend may send ARP requests from a VIP: neighbours learn its MAC from them."""
    known = _names_by_mac(observed, responses.macs)
    backends = {b.name for service in observed.config.services for b in service.backends}
    for (interface, address), macs in sorted(responses.arp_senders.items(), key=str):
        for mac in sorted(macs) if address in observed.vips else ():
            if (name := known.get(mac, "")) in backends:
                yield Finding(
                    "vip-announced", Severity.ERROR, name,
                    f"{name} ({mac.hex(':')}) sends ARP requests on {interface} with the VIP "
                    f"{address} as sender: others learn its MAC for the VIP",
                    f"set arp_announce=2 on {name}", on=name, commands=(fixes.SILENCE_ARP,),
                )  # fmt: skip


def check_resolution(observed: Observation, responses: Responses) -> Iterator[Finding]:
    """Every backend and load balancer that is on-link answers ARP or neighbour discovery."""
    used: dict[IPAddress, str] = {}
    for service in observed.config.services:
        for backend in service.backends:
            if observed.routes.serves_here(backend):
                continue
            if service.forwarding_of(backend) is Forwarding.L3:
                used[outer_address(backend)] = backend.name
            else:
                found = (a for a in backend.addresses if a.version in service.versions)
                used |= dict.fromkeys(found, backend.name)
    known = observed.config.load_balancers
    balancers = {a: name for name, a in known if a not in observed.addresses}
    for address, name in [*used.items(), *balancers.items()]:
        route = observed.host.routes.get(address)
        if route is None or not _is_on_link(route):
            continue
        link = observed.host.links.get(route.interface)
        if link is None or len(link.mac) != 6 or (route.interface, address) in responses.macs:
            continue
        state = observed.links.get(route.interface)
        if state is not None and not (state.up and state.carrier):
            continue  # reported for the interface
        if _request(observed, route.interface, address, awaited=True) is None:
            continue  # nobody was asked
        balancer = address in balancers and address not in used
        yield Finding(
            "load-balancer-unreachable" if balancer else "backend-unreachable",
            Severity.WARNING if balancer else Severity.ERROR, name,
            f"no machine answers {_PROTOCOLS[address.version]} for {address} on {route.interface}",
            f"start {name}, check its cable, or correct its address in the configuration",
        )  # fmt: skip


def check_return_traffic(observed: Observation, responses: Responses) -> Iterator[Finding]:
    """Packets from a VIP to others that were sent to this machine's MAC: answers must go straight
    to the clients."""
    known = _names_by_mac(observed, responses.macs)
    reported: set[tuple[str, int]] = set()
    for packet in sorted(responses.transit, key=str):
        name = known.get(packet.mac, packet.interface)
        version = packet.source.version
        if (name, version) in reported:
            continue
        reported.add((name, version))
        unused = UNUSED_ADDRESSES[version]
        what = "its default route" if packet.destination == unused else f"{packet.destination}"
        route = observed.host.routes.get(unused)
        gateway = route.gateway if route is not None and route.kind == "unicast" else None
        same_link = route is not None and route.interface == packet.interface
        backend = name if packet.mac in known else ""
        family = "-6 " if version == 6 else ""
        fixable = bool(backend) and gateway is not None and same_link
        yield Finding(
            "answers-through-balancer", Severity.ERROR, name,
            f"{name} ({packet.mac.hex(':')}) sends answers from {packet.source} to {what} through "
            "this machine: twice the load here, and they are lost unless it forwards them",
            "set the backend's default route to a router"
            + (f", such as {gateway}, which this machine uses" if gateway and same_link else ""),
            on=backend or HERE,
            commands=(f"ip {family}route replace default via {gateway}",) if fixable else (),
        )  # fmt: skip


def _names_by_mac(observed: Observation, macs: MacTable) -> Mapping[bytes, str]:
    """The names of configured machines by the MACs that claimed their addresses."""
    names = observed.names
    known: dict[bytes, str] = {}
    for (_, address), claimed_by in macs.items():
        if address in names and address not in observed.vips:
            known |= dict.fromkeys(claimed_by, names[address])
    return known


def _is_announced(observed: Observation, vip: IPAddress) -> bool:
    services = observed.config.services
    return any(vip in service.vips and service.announce is not False for service in services)


def _announced(interface: str, vip: IPAddress, mac: bytes, name: str) -> Finding:
    return Finding(
        "vip-announced", Severity.ERROR, name,
        f"{name} ({mac.hex(':')}) answers {_PROTOCOLS[vip.version]} for the VIP {vip} on "
        f"{interface}: clients reach it directly",
        f"on {name}, move the VIP to lo"
        + ("; set arp_ignore=1 and arp_announce=2" if vip.version == 4 else ""),
        on=name, commands=fixes.hide_vip(vip),
    )  # fmt: skip


def _conflict(interface: str, vip: IPAddress, mac: bytes, known: Mapping[bytes, str]) -> Finding:
    who = f"{known[mac]} ({mac.hex(':')})" if mac in known else f"the machine {mac.hex(':')}"
    return Finding(
        "arp-conflict" if vip.version == 4 else "nd-conflict", Severity.ERROR, interface,
        f"{who} also answers {_PROTOCOLS[vip.version]} for the VIP {vip} on {interface}",
        f"remove {vip} from that machine; if the VIP moves between the two (VRRP), set "
        "announce: false",
    )  # fmt: skip


def _duplicate(
    interface: str, vip: IPAddress, macs: list[bytes], known: Mapping[bytes, str]
) -> Finding:
    who = ", ".join(mac.hex(":") + (f" ({known[mac]})" if mac in known else "") for mac in macs)
    return Finding(
        "duplicate-vip", Severity.ERROR, interface,
        f"{len(macs)} other machines answer {_PROTOCOLS[vip.version]} for the VIP {vip}: {who}",
        f"leave {vip} on one machine of this link",
    )  # fmt: skip
