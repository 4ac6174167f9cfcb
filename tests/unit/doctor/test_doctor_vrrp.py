"""Adverts, what balancers' states follow from them, and rules that drop them: without packets."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

import pytest

from support.advertiser import advert
from support.builders import make_backend, make_config, make_host, make_service
from tula.doctor.adverts import Advert, parse_advert
from tula.doctor.chains import Drops, SamplePacket, drops_packet
from tula.doctor.cluster import Cluster, observe_cluster
from tula.doctor.neighbours import check_vip_owners
from tula.doctor.observation import Observation
from tula.doctor.own_filters import check_own_filters
from tula.doctor.packets import ip
from tula.doctor.requests import Responses
from tula.doctor.run import CLUSTER_CHECKS, balancer_checks
from tula.doctor.vrrp import check_adverts, check_vrrp_vips
from tula.model.chain import CT_STATE, BaseChain, ChainRule, Match
from tula.model.config import IPAddress
from tula.model.high_availability import HighAvailability, VipMac, Vrrp
from tula.model.host import HostAddress, Route
from tula.model.listening import ApiSettings, Endpoint
from tula.plan.routes import plan_routes

OWN, PEER, VIP = ip_address("10.0.0.2"), ip_address("10.0.0.3"), ip_address("10.0.0.100")
PEERS_MAC = bytes.fromhex("020000000003")
VIRTUAL_MAC = bytes.fromhex("00005e000154")
CONFIG = replace(
    make_config(make_service(backends=[make_backend(0, dual=False)])),
    load_balancers=(("lb1", OWN), ("lb2", PEER)),
    high_availability=HighAvailability(Vrrp(84)),
)
HOST = make_host(CONFIG)
CLUSTER = Cluster("lb1", OWN, (("lb2", PEER),), "eth0", Vrrp(84), frozenset({VIP}))


def observed(*held: str, cluster: Cluster = CLUSTER) -> Observation:
    """``held``: VIPs on eth0."""
    vips = tuple(HostAddress("eth0", ip_interface(text)) for text in held)
    host = replace(HOST, addresses=(*HOST.addresses, *vips))
    return Observation(CONFIG, host, plan_routes(CONFIG, host), cluster=cluster)


def said(source: IPAddress, priority: int = 250, **keys: object) -> Advert:
    found = Advert(source, PEER, 3, 84, priority, (ip_address("169.254.84.84"),), 0.1)
    return replace(found, outgoing=source == OWN, **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("version", [4, 6])
def test_an_advert(version: int) -> None:
    source, target, vip = (
        ("10.0.0.2", "224.0.0.18", "10.0.0.100")
        if version == 4
        else ("fe80::2", "ff02::12", "fd09::100")
    )
    body = advert((vip,), 51, 99, interval=1.5)
    packet = ip(ip_address(source), ip_address(target), 112, body, 7)
    assert parse_advert(packet, True, 3.0) == Advert(
        ip_address(source), ip_address(target), 3, 51, 99, (ip_address(vip),), 1.5, False, True, 3.0
    )  # fmt: skip
    old_body = advert((vip,), version=2, interval=2, authentication=1)
    old = parse_advert(ip(ip_address(source), ip_address(target), 112, old_body, 7))
    assert old is not None
    assert (old.version, old.interval, old.authenticated) == (2, 2.0, True)
    for cut in range(len(packet)):
        parse_advert(packet[:cut])  # nothing breaks
    assert parse_advert(ip(ip_address(source), ip_address(target), 17, body, 7)) is None


def test_a_machine_that_is_no_balancer_of_a_cluster() -> None:
    assert observe_cluster(make_config(), HOST, dict, Path()) is None
    alone = replace(CONFIG, load_balancers=(("lb2", PEER),))
    assert observe_cluster(alone, HOST, dict, Path()) is None
    checks = {what for what, _ in CLUSTER_CHECKS}
    assert not checks & {what for what, _ in balancer_checks(replace(observed(), cluster=None))}
    assert checks <= {what for what, _ in balancer_checks(observed())}


MACS = {("eth0", PEER): {PEERS_MAC}}
BOTH = MACS | {("eth0", VIP): {PEERS_MAC}}


@pytest.mark.parametrize(
    ("held", "macs", "adverts", "wanted"),
    [
        (True, MACS, [said(OWN)] * 10, set()),
        (False, BOTH, [said(PEER)] * 10, set()),
        # A switchover while the doctor listens: one yields, the other begins.
        (True, MACS, [*[said(PEER)] * 9, said(PEER, 0), *[said(OWN)] * 5], set()),
        (True, MACS, [*[said(PEER)] * 2, *[said(OWN)] * 8], set()),
        (True, BOTH, [said(OWN)] * 10, {"adverts-missing", "vip-on-several"}),
        (True, MACS, [said(OWN), said(PEER)] * 5, {"one-way-adverts"}),
        (False, BOTH, [], {"adverts-missing"}),
        (False, MACS, [said(PEER)] * 10, {"vip-on-none"}),
        (False, MACS, [], {"vip-on-none"}),
        (True, MACS, [], {"adverts-not-sent"}),
        (False, BOTH, [said(PEER, version=2, destination=OWN)] * 10, {"vrrp-differs"}),
        (False, BOTH, [*[said(PEER)] * 9, said(PEER, id=7)], set()),
        (False, MACS | {("eth0", VIP): {VIRTUAL_MAC}}, [said(PEER)] * 10, set()),
        (True, MACS, [said(OWN), said(ip_address("10.0.0.9"))] * 5, {"vrrp-id-in-use"}),
    ],
)  # fmt: skip
def test_judgement(
    held: bool,
    macs: dict[tuple[str, IPAddress], set[bytes]],
    adverts: list[Advert],
    wanted: set[str],
) -> None:
    machine = observed(*(["10.0.0.100/32"] if held else []))
    timed = [replace(each, at=number / 10) for number, each in enumerate(adverts)]
    responses = Responses(macs=macs, adverts=timed)
    checks = (check_adverts, check_vrrp_vips, check_vip_owners)
    assert {f.id for check in checks for f in check(machine, responses)} == wanted


def test_with_long_intervals_silence_says_nothing() -> None:
    slow = replace(CLUSTER, vrrp=Vrrp(84, interval=2.0))
    assert slow.listening == 3.0
    responses = Responses(macs=BOTH)
    machine = observed("10.0.0.100/32", cluster=slow)
    assert not list(check_adverts(machine, responses))


def test_a_stranger_that_has_the_vip_is_no_balancer() -> None:
    responses = Responses(macs=MACS | {("eth0", VIP): {bytes.fromhex("020000000009")}})
    assert [f.id for f in check_vip_owners(observed("10.0.0.100/32"), responses)] == [
        "arp-conflict"
    ]


def test_a_stranger_with_the_virtual_mac_is_an_error() -> None:
    virtual = replace(CLUSTER, vrrp=Vrrp(84, mac=VipMac.VIRTUAL))
    responses = Responses(macs=MACS, adverts=[said(OWN), said(ip_address("10.0.0.9"))] * 5)
    machine = observed("10.0.0.100/32", cluster=virtual)
    (found,) = check_adverts(machine, responses)
    assert (found.id, str(found.severity)) == ("vrrp-id-in-use", "error")


NEW = 8
TO_KNOWN = Match((CT_STATE, 0b110, 4), False, bytes(4))
FROM_ETH0 = Match(("iifname", 0, 16), True, b"eth0".ljust(16, b"\0"))
FROM_ANY_ETH = Match(("iifname", 0, 3), True, b"eth")
ON_ETH0 = SamplePacket(OWN, 112, None, PEER, arrives=("eth0", 2), state=NEW)


@pytest.mark.parametrize(
    ("match", "sample", "wanted"),
    [
        (TO_KNOWN, ON_ETH0, Drops.YES),
        (TO_KNOWN, replace(ON_ETH0, state=0), Drops.MAYBE),
        (FROM_ETH0, ON_ETH0, Drops.NO),
        (FROM_ETH0, replace(ON_ETH0, arrives=("eth0.7", 9)), Drops.YES),
        (FROM_ANY_ETH, replace(ON_ETH0, arrives=("eth0.7", 9)), Drops.NO),
        (FROM_ETH0, replace(ON_ETH0, arrives=None), Drops.MAYBE),
        (Match(("network", 12, 4), True, PEER.packed), ON_ETH0, Drops.NO),
        (Match(("network", 12, 4), True, OWN.packed), ON_ETH0, Drops.YES),
    ],
)
def test_what_a_rule_accepts_before_a_policy_of_drop(
    match: Match, sample: SamplePacket, wanted: Drops
) -> None:
    rules = (ChainRule((match,), verdict="accept"),)
    chain = BaseChain("inet", "guard", "in", "input", (), 0, True, rules)
    assert drops_packet(chain, sample) is wanted


@pytest.mark.parametrize(
    ("listen", "rules", "wanted"),
    [
        ((), (), {"IP protocol 112"}),
        (("0.0.0.0",), (), {"IP protocol 112", "tcp port 8420"}),
        (("10.0.0.2",), (), {"IP protocol 112", "tcp port 8420"}),
        (("127.0.0.1", "10.1.0.2"), (), {"IP protocol 112"}),
        (("::",), (ChainRule((FROM_ETH0,), verdict="accept"),), set()),
    ],
)
def test_own_rules(listen: tuple[str, ...], rules: tuple[ChainRule, ...], wanted: set[str]) -> None:
    """A usual firewall: what is known may pass, and what a policy of drop leaves."""
    known = ChainRule((TO_KNOWN,), verdict="accept")
    chain = BaseChain("inet", "guard", "in", "input", (), 0, True, (known, *rules))
    output = replace(chain, hook="output", rules=(ChainRule(verdict="accept"),))
    machine = observed(cluster=replace(CLUSTER, chains=[chain, output]))
    api = ApiSettings(tuple(Endpoint(ip_address(text), 8420) for text in listen))
    routes = {**HOST.routes, PEER: Route("unicast", "eth0", source=OWN)}
    host = replace(machine.host, routes=routes)
    config = replace(CONFIG, api=api)
    found = list(check_own_filters(replace(machine, config=config, host=host), Responses()))
    assert {f.evidence.split(", ")[1] for f in found} == wanted
    assert {f.id for f in found} <= {"peer-filtered"}
