"""The chains of flows that are shared: packets that other balancers are told by, and those that
they tell by. See ``shared_flows``."""

from __future__ import annotations

from tula.dataplane.nft.flow_maps import (
    TABLE_FULL,
    FlowMaps,
    closed_entry,
    forget,
    forget_closed,
    seconds,
    stale_rule,
    with_hot,
)
from tula.dataplane.nft.packet_fields import FLOW_KEY, PLAIN_HEADER
from tula.dataplane.nft.ruleset import Chain, Rule
from tula.dataplane.nft.shared_flows import Sharing
from tula.model.config import Protocol
from tula.model.stats import FLOWS_LEARNED


def tell_chains(flows: FlowMaps, sharing: Sharing) -> dict[str, Chain]:
    """What happens to the packets that others are told of: sent to them, then forwarded."""
    clone, forward = sharing.clone(), Rule.of(f"goto {flows.name('forward')}")
    chains = {
        flows.name(f"told_{p}"): Chain((clone, flows.forward, stale_rule(flows, p)))
        for p in flows.tables or ()
    }
    chains[flows.name("tell")] = Chain((clone,))
    if sharing.all_flows:
        chains[flows.name("tell_new")] = Chain((clone, forward))
    return chains


def learn_chains(flows: FlowMaps, sharing: Sharing) -> dict[str, Chain]:
    """Learns from another balancer's packets, which it has dealt with itself. An entry that is
    there is replaced: an update would keep its backend."""
    assert flows.tables is not None
    key, plain, end = FLOW_KEY[flows.version], PLAIN_HEADER[flows.version], "drop"
    full = f"counter name {TABLE_FULL} {end}"
    learned = f"counter name {FLOWS_LEARNED} {end}"
    tcp, udp = flows.settings.tcp, flows.settings.udp
    sampled = _sampled_chains(flows)

    def and_sampled(what: str) -> str:
        chain = flows.name(f"sample_shared_{what}")
        return f"counter name {FLOWS_LEARNED} goto {chain}" if sampled else learned

    def entry(protocol: Protocol, life: float) -> str:
        assert flows.tables is not None
        gone = forget(flows, protocol)
        timeout = seconds(life)
        return f"{gone} add @{flows.tables[protocol]} {{ {key} timeout {timeout} : meta mark }}"

    closed = f"{forget_closed(flows)} add @{flows.closed} {closed_entry(flows)}"
    by_tcp = (
        Rule.of(
            f"tcp flags & (fin|syn|rst|ack) == syn {forget_closed(flows)} "
            f"{entry(Protocol.TCP, flows.settings.tcp_half_open)} {and_sampled('syn')}"
        ),
        Rule.of(f"tcp flags & (fin|rst) != 0 {forget(flows, Protocol.TCP)} {closed} {learned}"),
        # The last packets of a connection do not open it again.
        Rule.of(
            f"meta mark set {key} map @{flows.closed} "
            f"meta mark set ether saddr map @{sharing.learned_as} {closed} {learned}"
        ),
        Rule.of(f"{entry(Protocol.TCP, with_hot(tcp))} {and_sampled('tcp')}"),
        Rule.of(full),
    )
    by_udp = (Rule.of(f"{entry(Protocol.UDP, with_hot(udp))} {and_sampled('udp')}"), Rule.of(full))
    names = {p: flows.name(f"learn_shared_{p}") for p in (Protocol.TCP, Protocol.UDP)}
    first = tuple(Rule.of(f"{plain}meta l4proto {p.number} goto {n}") for p, n in names.items())
    return sampled | {
        flows.name("learn_shared"): Chain((*first, Rule.of(end))),
        names[Protocol.TCP]: Chain(by_tcp),
        names[Protocol.UDP]: Chain(by_udp),
    }


def _sampled_chains(flows: FlowMaps) -> dict[str, Chain]:
    """The same for the sample of flows."""
    if flows.sample is None:
        return {}
    settings = flows.settings
    lives = {
        "syn": settings.tcp_half_open,
        "tcp": with_hot(settings.tcp),
        "udp": with_hot(settings.udp),
    }
    return {
        flows.name(f"sample_shared_{what}"): Chain(
            (Rule.of(flows.sample.begin(seconds(life))), Rule.of("drop"))
        )
        for what, life in lives.items()
    }
