"""What VRRP's adverts, and the answers for its VIPs, say of a cluster's state. Pure.

Only an active balancer sends adverts. Two that are active hear each other, and the one whose
adverts rank lower yields at once; so if both go on, one of them does not get the other's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from tula.doctor.adverts import VRRP, Advert
from tula.doctor.cluster import Cluster
from tula.doctor.observation import Observation
from tula.doctor.own_filters import allow, may_drop, plan_traffic
from tula.doctor.requests import Responses
from tula.model.config import IPAddress
from tula.model.finding import Finding, Severity
from tula.model.high_availability import VipMac
from tula.model.wording import describe_duration, named

_AGAIN = 3
"""Adverts of a sender after which it is one that goes on."""
_VERSION = 3
_PASS = (
    "let IP protocol 112 pass between the balancers: firewalls there and on the way, security "
    "groups in clouds"
)


def check_adverts(observed: Observation, responses: Responses) -> Iterator[Finding]:
    """Who is active by what is heard: each other balancer, this one, and others with the id."""
    cluster = observed.cluster
    if cluster is None or cluster.vrrp is None or not cluster.interface:
        return
    adverts, own_id = responses.adverts, cluster.vrrp.id
    names = cluster.names
    yield from _strangers(observed, cluster, adverts)
    active = bool(held_vips(observed, cluster))
    sent = [a for a in adverts if a.outgoing and a.id == own_id]
    answering = set(_answering(observed, responses, cluster).values())
    for address, name in names.items():
        theirs = [a for a in adverts if a.source == address and not a.outgoing]
        of_ours = [a for a in theirs if a.id == own_id and a.version == _VERSION]
        if theirs and not of_ours:
            yield from _other_settings(cluster, name, theirs)
        elif active and _both_go_on(of_ours, sent):
            yield _one_way(observed, cluster, name, of_ours[-1], sent[-1])
        elif not theirs and name in answering and cluster.hears_all:
            yield _missing(observed, cluster, name, address)
    if active and not sent and cluster.hears_all:
        yield Finding(
            "adverts-not-sent", Severity.ERROR, cluster.interface,
            f"this machine has VIPs of VRRP, and in {cluster.listening:g} s no advert of its left "
            f"by {cluster.interface}: the others take the VIPs too",
            "see that keepalived runs, and that no output rule drops IP protocol 112",
        )  # fmt: skip


def check_vrrp_vips(observed: Observation, responses: Responses) -> Iterator[Finding]:
    """Each VIP of VRRP is on one balancer."""
    cluster = observed.cluster
    if cluster is None or not cluster.vips:
        return
    held = held_vips(observed, cluster)
    answered: dict[IPAddress, set[str]] = {}
    for (vip, _), name in _answering(observed, responses, cluster).items():
        answered.setdefault(vip, set()).add(name)
    both = {vip: names for vip, names in answered.items() if len(names) + (vip in held) > 1}
    if both:
        vips, names = sorted(both, key=str), sorted(set().union(*both.values()))
        machines = [*(["this machine"] if held & set(vips) else []), *names]
        yield Finding(
            "vip-on-several", Severity.WARNING, cluster.interface or names[0],
            f"{' and '.join(machines)} have {_named(vips)}: all of them forward, so no connection "
            "breaks, but they do not hear each other",
            f"see that keepalived runs on each by the same configuration; {_PASS}",
        )  # fmt: skip
    asked = {vip for vip in cluster.vips if _was_asked(observed, vip)}
    others = {vip for (_, vip), macs in responses.macs.items() if macs}
    if nobody := sorted(asked - held - others, key=str):
        yield Finding(
            "vip-on-none", Severity.ERROR, cluster.interface,
            f"no balancer has {_named(nobody)}: nobody answers ARP or neighbour discovery for "
            f"{'it' if len(nobody) == 1 else 'them'} on {cluster.interface}",
            "see that keepalived runs on the balancers, and what it says (journalctl -u "
            "tula-keepalived)",
        )  # fmt: skip


def held_vips(observed: Observation, cluster: Cluster) -> set[IPAddress]:
    """The VIPs of VRRP that are on this machine, where it announces them."""
    shown = {held.address.ip for held in observed.host.addresses if not held.quiet}
    return shown & cluster.vips


def _answering(
    observed: Observation, responses: Responses, cluster: Cluster
) -> dict[tuple[IPAddress, bytes], str]:
    """The other balancers that answer for VIPs of VRRP, by VIP and MAC."""
    balancers = {
        mac: cluster.names[address]
        for (_, address), macs in responses.macs.items()
        if address in cluster.names
        for mac in macs
    }
    ours = {link.mac for link in observed.host.links.values()}
    found = {}
    for (_, vip), macs in responses.macs.items():
        for mac in macs - ours if vip in cluster.vips else ():
            if mac in balancers:
                found[vip, mac] = balancers[mac]
            elif cluster.is_virtual(mac):
                found[vip, mac] = _only(cluster)
    return found


def _only(cluster: Cluster) -> str:
    """Who has the virtual MAC, which every balancer may have."""
    return cluster.peers[0][0] if len(cluster.peers) == 1 else "another balancer"


def _both_go_on(one: Sequence[Advert], other: Sequence[Advert]) -> bool:
    """Whether both senders go on after each has heard the other, if it could: one that yields
    sends no more, or one more with priority 0."""
    alive = [[a.at for a in adverts if a.priority] for adverts in (one, other)]
    if not all(alive):
        return False
    latest_start = max(times[0] for times in alive)
    return all(sum(at >= latest_start for at in times) >= _AGAIN for times in alive)


def _strangers(
    observed: Observation, cluster: Cluster, adverts: Sequence[Advert]
) -> Iterator[Finding]:
    """Others in the subnet with this id."""
    assert cluster.vrrp is not None
    own = observed.addresses | set(cluster.names)
    strangers: dict[IPAddress, Advert] = {}
    for advert in adverts:
        # A balancer may be known here by another address than the one that it sends from.
        foreign = advert.source not in own and not advert.outgoing
        if foreign and advert.id == cluster.vrrp.id and advert.source not in strangers:
            strangers[advert.source] = advert
    for source, advert in sorted(strangers.items(), key=str):
        shared = sorted(set(advert.addresses) & observed.vips, key=str)
        virtual = cluster.vrrp.mac is VipMac.VIRTUAL
        with_password = ", with authentication" if advert.authenticated else ""
        yield Finding(
            "vrrp-id-in-use", Severity.ERROR if shared or virtual else Severity.WARNING,
            cluster.interface,
            f"{source}, which is not in load_balancers, sends adverts with the id {advert.id} "
            f"(VRRP version {advert.version}, priority {advert.priority}{with_password}"
            + (f", for {_named(advert.addresses)})" if advert.addresses else ")")
            + (f": it claims {_named(shared)} too" if shared else "")
            + (": both have the same MAC address" if virtual else ""),
            "give high_availability.vrrp.id another value, on all balancers; or, if it is one of "
            "them, correct its address in load_balancers",
        )  # fmt: skip


def _other_settings(cluster: Cluster, name: str, theirs: Sequence[Advert]) -> Iterator[Finding]:
    """A peer that advertises to this machine, but not as this one expects."""
    assert cluster.vrrp is not None
    to_us = [advert for advert in theirs if advert.destination == cluster.address]
    if not to_us:
        return  # another VRRP on that machine, of no concern
    last = to_us[-1]
    yield Finding(
        "vrrp-differs", Severity.ERROR, name,
        f"{name} sends adverts of VRRP version {last.version} with the id {last.id}; here it is "
        f"version {_VERSION} with the id {cluster.vrrp.id}: both are active",
        "apply the same configuration on all balancers, and let Tula run keepalived there",
    )  # fmt: skip


def _one_way(
    observed: Observation, cluster: Cluster, name: str, theirs: Advert, own: Advert
) -> Finding:
    both = f"{name} sends adverts (priority {theirs.priority}), and so does this machine "
    both += f"(priority {own.priority}): "
    if set(theirs.addresses) != set(own.addresses):
        return Finding(
            "vrrp-differs", Severity.WARNING, name,
            f"{both}theirs are for {_named(theirs.addresses) or 'nothing'}, and these for "
            f"{_named(own.addresses) or 'nothing'}, so neither takes the other's",
            "apply the same configuration on all balancers, and let Tula run keepalived there",
        )  # fmt: skip
    if theirs.rank < own.rank:
        return Finding(
            "one-way-adverts", Severity.WARNING, name,
            f"{both}{name} has to yield, but does not get this machine's",
            f"{_PASS}; start with {name}: tula doctor there names rules that drop them",
            certain=False,
        )  # fmt: skip
    traffic = next(
        t for t in plan_traffic(observed, cluster) if t.name == name and t.protocol == VRRP
    )
    chain = may_drop(cluster, traffic, incoming=True)
    because = f"; the chain {chain} ({chain.hook}) may drop them" if chain is not None else ""
    return Finding(
        "one-way-adverts", Severity.WARNING, name,
        f"{both}this machine has to yield, and keepalived here does not take theirs, which do "
        f"arrive{because}",
        f"let IP protocol 112 from {theirs.source} pass this machine's own rules",
        certain=chain is not None,
        commands=allow(chain, traffic, incoming=True) if chain is not None else (),
    )  # fmt: skip


def _missing(observed: Observation, cluster: Cluster, name: str, address: IPAddress) -> Finding:
    assert cluster.vrrp is not None
    here = "; this machine has them too" if held_vips(observed, cluster) else ""
    return Finding(
        "adverts-missing", Severity.WARNING, name,
        f"{name} answers for VIPs of VRRP{here}, and no advert from {address} arrived at "
        f"{cluster.interface} in {cluster.listening:g} s; one comes every "
        f"{describe_duration(cluster.vrrp.interval)}",
        f"{_PASS}; or keepalived has died there and left the VIPs: tula doctor on {name}",
        certain=False,
    )  # fmt: skip


def _named(addresses: Iterable[IPAddress]) -> str:
    return named([str(address) for address in addresses])


def _was_asked(observed: Observation, vip: IPAddress) -> bool:
    """Whether somebody who has the VIP would have answered on some interface."""
    for name in observed.interfaces:
        state = observed.links.get(name)
        own = (a for a in observed.host.addresses if a.interface == name)
        if (
            len(observed.host.links[name].mac) == 6
            and (state is None or (state.up and state.carrier))
            and any(a.address.version == vip.version and vip in a.address.network for a in own)
        ):
            return True
    return False
