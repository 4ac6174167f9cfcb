"""Whether this machine's own rules drop what balancers and routers tell each other. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tula.doctor.adverts import VRRP
from tula.doctor.chains import Drops, SamplePacket, drops_packet
from tula.doctor.cluster import Cluster
from tula.doctor.observation import Observation
from tula.doctor.requests import Responses
from tula.model.chain import BaseChain
from tula.model.config import IPAddress
from tula.model.finding import HERE, Finding, Severity

_TCP, _UDP = 6, 17
_NEW = 1 << 3
"""Connection tracking's state of a packet that belongs to nothing (NF_CT_STATE_BIT)."""
_BFD = {False: 3784, True: 4784}
"""UDP ports, on the link and over routers (RFC 5881, RFC 5883)."""
_IPTABLES = {"filter", "mangle", "nat", "raw", "security"}
_NAMES = {_TCP: "tcp", _UDP: "udp"}


@dataclass(frozen=True, slots=True)
class Traffic:
    """Packets of one kind between this machine and another one; ``serious``: without them VIPs
    are lost, or held twice."""

    what: str
    protocol: int
    port: int | None
    other: IPAddress
    name: str
    own: IPAddress
    interface: str
    index: int
    serious: bool = True

    @property
    def kind(self) -> str:
        """In one word, such as ``udp port 4790``."""
        if self.port is None:
            return f"IP protocol {self.protocol}"
        return f"{_NAMES[self.protocol]} port {self.port}"

    def sample(self, *, incoming: bool) -> SamplePacket:
        """One of these packets, that starts something new."""
        source, target = (self.other, self.own) if incoming else (self.own, self.other)
        place = (self.interface, self.index) if self.interface else None
        return SamplePacket(
            target,
            self.protocol,
            self.port,
            source,
            arrives=place if incoming else None,
            leaves=None if incoming else place,
            state=_NEW,
        )


def plan_traffic(observed: Observation, cluster: Cluster) -> Iterator[Traffic]:
    """What must pass this machine's rules."""
    settings = observed.config.high_availability
    for name, address in cluster.peers:
        place = _place(observed, address)
        ends = (address, name, cluster.address)
        if cluster.vrrp is not None and address.version == cluster.address.version:
            via = _index(observed, cluster.interface)
            yield Traffic("VRRP's adverts", VRRP, None, *ends, cluster.interface, via)
        if cluster.shared_with is not None:
            yield Traffic("flows", _UDP, settings.port, *ends, *place, serious=False)
        for port in sorted(_asked_at(observed, cluster)):
            yield Traffic("the API's requests", _TCP, port, *ends, *place, serious=False)
    if settings.bgp is None or not settings.bgp.bfd:
        return
    for router, _ in settings.bgp.routers:
        route = observed.host.routes.get(router)
        if route is None or route.source is None or route.kind != "unicast":
            continue
        port = _BFD[route.gateway is not None]
        place = route.interface, _index(observed, route.interface)
        yield Traffic("BFD", _UDP, port, router, str(router), route.source, *place)


def _asked_at(observed: Observation, cluster: Cluster) -> set[int]:
    """The TCP ports at which other balancers ask this one."""
    listen = observed.config.api.listen
    return {
        each.port
        for each in listen
        if each.address == cluster.address
        or (
            each.address.is_unspecified
            and (each.address.version == 6 or cluster.address.version == 4)
        )
    }


def check_own_filters(observed: Observation, _: Responses) -> Iterator[Finding]:
    """Chains of others that drop them, by rules that can be read completely."""
    cluster = observed.cluster
    if cluster is None:
        return
    for traffic in plan_traffic(observed, cluster):
        # What is connected by this machine is its own business: it says when it gets no answer.
        for incoming in (True,) if traffic.protocol == _TCP else (True, False):
            sample = traffic.sample(incoming=incoming)
            for chain in _seen_by(cluster, sample, incoming=incoming):
                if drops_packet(chain, sample) is Drops.YES:
                    yield _dropped(chain, traffic, incoming=incoming)


def may_drop(cluster: Cluster, traffic: Traffic, *, incoming: bool) -> BaseChain | None:
    """A chain that drops these packets, or some of them; None where none does."""
    sample = replace(traffic.sample(incoming=incoming), state=0)
    return next(
        (
            chain
            for chain in _seen_by(cluster, sample, incoming=incoming)
            if drops_packet(chain, sample) is not Drops.NO
        ),
        None,
    )


def _seen_by(cluster: Cluster, sample: SamplePacket, *, incoming: bool) -> Iterator[BaseChain]:
    hooks = ("prerouting", "input") if incoming else ("output", "postrouting")
    other = {4: "ip6", 6: "ip"}[sample.vip.version]
    return (c for c in cluster.chains if c.hook in hooks and c.family != other)


def _dropped(chain: BaseChain, traffic: Traffic, *, incoming: bool) -> Finding:
    # Adverts of both make one connection: what was sent has what comes let in.
    anyway = drops_packet(chain, replace(traffic.sample(incoming=incoming), state=0))
    at_first = traffic.port is None and anyway is not Drops.YES
    whom = f"from {traffic.name}" if incoming else f"to {traffic.name}"
    return Finding(
        "peer-filtered",
        Severity.ERROR if traffic.serious and not at_first else Severity.WARNING,
        HERE,
        f"the chain {chain} ({chain.hook}) drops {traffic.what} {whom} ({traffic.other}), "
        f"{traffic.kind}"
        + (", until this machine has sent some: it takes the VIPs when it starts" * at_first),
        "allow them there, and in the configuration that the rules are loaded from",
        commands=allow(chain, traffic, incoming=incoming),
    )  # fmt: skip


def allow(chain: BaseChain, traffic: Traffic, *, incoming: bool) -> tuple[str, ...]:
    """A rule that lets them pass, in the way of whoever manages the chain; none for firewalld,
    which removes rules that are not its own."""
    four, port = traffic.other.version == 4, traffic.port
    if chain.table == "firewalld":
        return ()
    if chain.table in _IPTABLES and chain.name.isupper():
        program, end = "iptables" if four else "ip6tables", "-s" if incoming else "-d"
        table = f"-t {chain.table} " if chain.table != "filter" else ""
        what = _NAMES.get(traffic.protocol, str(traffic.protocol))
        what += f" --dport {port}" if port is not None else ""
        return (f"{program} {table}-I {chain.name} {end} {traffic.other} -p {what} -j ACCEPT",)
    family, end = "ip" if four else "ip6", "saddr" if incoming else "daddr"
    match = (
        f"meta l4proto {traffic.protocol}"
        if port is None
        else f"{_NAMES[traffic.protocol]} dport {port}"
    )
    return (f"nft insert rule {chain} {family} {end} {traffic.other} {match} accept",)


def _place(observed: Observation, address: IPAddress) -> tuple[str, int]:
    """The interface towards a machine, empty where it is not known."""
    route = observed.host.routes.get(address)
    name = route.interface if route is not None and route.kind == "unicast" else ""
    return name, _index(observed, name)


def _index(observed: Observation, name: str) -> int:
    return observed.host.links[name].index if name in observed.host.links else 0
