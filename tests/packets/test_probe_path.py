"""Health checks through the data path: to the VIP, by the backend under test, and straight back.

::

                 lb  ── VIP "here" on eth0; "routed" on the subnet, held by nobody;
                 │      "away" without a route
    ═════════════╪═══════════════════╤═════════════  lan
              client-1          backend-1 … -3   (all VIPs on lo)

    probe:   lb, socket ─▶ lo ─▶ eth0 ─▶ the backend that it names
    answer:  backend, from the VIP ─▶ lb's own address

With tunnels the backends are behind a router, and probes go in the same tunnel as packets.
"""

from __future__ import annotations

import os
import re
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether
from scapy.packet import Packet

from support.lab_configurations import backends_of
from support.packets import FAMILIES, address_of, is_of, read_packets
from support.probing import (
    ALL_VIPS,
    VIPS,
    Probing,
    ask_tcp,
    ask_udp,
    ping,
    probe_socket,
    services,
)
from support.snapshots import snapshot, sysctls
from support.tunnelled import LINK_KINDS, Outside, Tunnelled, make_backend
from support.uploads import Sink
from tula.dataplane.nft.ids import PROBE_MARK
from tula.lab import (
    Capture,
    Lab,
    Network,
    flat,
    serve_tcp,
    serve_udp,
    set_offload,
    udp_ask,
    wait_until,
)

pytestmark = pytest.mark.kernel


WHERES = tuple(VIPS)
PLACES = [(where, family) for where in WHERES for family in FAMILIES]


class Flat(Probing):
    """All on one switch, with the strict filter that distributions set."""

    def __init__(self, lab: Lab, directory: Path, *wheres: str) -> None:
        self.network: Network = flat(lab, clients=1, vips=ALL_VIPS)
        for backend in self.network.backends:
            serve_tcp(backend, [80])
            serve_udp(backend, [80])
        self.network.lb.write_sysctl("net/ipv4/conf/eth0/rp_filter", 1)
        self.network.lb.write_sysctl("net/ipv4/conf/eth0/accept_local", 0)
        backends = backends_of(*self.network.backends)
        super().__init__(
            self.network.lb,
            directory / "tula.yaml",
            services(backends, *wheres, forwarding="l2"),
        )


@pytest.fixture(scope="module")
def l2(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flat]:
    """All three services by L2."""
    with Lab() as lab:
        made = Flat(lab, tmp_path_factory.mktemp("l2"), *WHERES)
        made.apply()
        yield made


@pytest.mark.parametrize(("where", "family"), PLACES)
def test_each_backend_answers_for_itself_from_the_vip(l2: Flat, where: str, family: int) -> None:
    probes = l2.of(where, family)
    assert [probe.backend for probe in probes] == ["backend-1", "backend-2", "backend-3"]
    with Capture(l2.lb) as at_lb:
        for probe in probes:
            assert ask_tcp(l2.lb, probe.target) == probe.backend
            assert ask_udp(l2.lb, probe.target) == probe.backend
            assert ping(l2.lb, probe.target, 1 + probe.target.priority % 1000)
        frames = at_lb.frames(outgoing=True), at_lb.frames(outgoing=False)
    # Of the other family the last packets of the test before may still come.
    sent, received = ([p for p in read_packets(some) if is_of(p.source, family)] for some in frames)
    vip, own = VIPS[where][family == 6], address_of(l2.lb, family)
    assert {(p.source, p.destination) for p in sent} == {(own, vip)}
    assert {(p.source, p.destination) for p in received} == {(vip, own)}
    # Straight back: from the backend's own MAC, with all its hops.
    assert {p.from_mac for p in received} == {b.mac() for b in l2.network.backends}
    assert {p.hops for p in received} == {64}
    assert {p.hops for p in sent} == {63}, "forwarded once, as a client's packets are"


@pytest.mark.parametrize("where", WHERES)
@pytest.mark.parametrize("family", FAMILIES)
def test_alone_each_place_gets_the_sysctls_that_it_needs(
    lab: Lab, tmp_path: Path, where: str, family: int
) -> None:
    made = Flat(lab, tmp_path, where)
    made.apply()
    for probe in made.of(where, family):
        assert ask_tcp(made.lb, probe.target) == probe.backend
    found = {
        name: made.lb.read_sysctl(f"net/ipv4/conf/eth0/{name}")
        for name in ("rp_filter", "accept_local")
    }
    assert (
        found
        == {
            "here": {"rp_filter": "2", "accept_local": "1"},
            "routed": {"rp_filter": "1", "accept_local": "0"},
            "away": {"rp_filter": "0", "accept_local": "0"},
        }[where]
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_large_requests_arrive_whole(l2: Flat, family: int) -> None:
    probe = l2.of("here", family)[0]
    sink = Sink(l2.network.backends[0], [8080], [str(probe.target.address)]).start()
    target = replace(probe.target, port=8080)
    assert ask_tcp(l2.lb, target, size=300_000) == "300000"
    sink.close()


def wrong_checksums(packets: Iterable[Packet]) -> list[str]:
    """The TCP packets whose checksum is not that of their bytes."""
    found = []
    for packet in packets:
        again = packet.copy()
        del again[TCP].chksum
        if type(packet)(bytes(again))[TCP].chksum != packet[TCP].chksum:
            found.append(packet.summary())
    return found


@pytest.mark.parametrize("family", FAMILIES)
def test_checksums_are_right_where_no_card_completes_them(l2: Flat, family: int) -> None:
    """lo needs none, so a probe's packets come there without; they must leave with one."""
    backend = l2.network.backends[0]
    sink = Sink(backend, [8081], [VIPS["here"][family == 6]]).start()
    target = replace(l2.of("here", family)[0].target, port=8081)
    set_offload(l2.lb, tx=False, tso=False, gso=False)
    try:
        with Capture(backend) as at_backend:
            assert ask_tcp(l2.lb, target, size=20_000) == "20000"
            ours = [f for f in map(Ether, at_backend.frames(outgoing=False)) if TCP in f]
    finally:
        set_offload(l2.lb, tx=True, tso=True, gso=True)
        sink.close()
    packets = [frame.payload for frame in ours]
    assert max(map(len, packets)) <= 1300, "by the probe's own MSS"
    assert len(packets) > 16
    assert wrong_checksums(packets) == []


@pytest.mark.parametrize(("where", "family"), PLACES)
def test_a_backend_without_the_vip_or_the_server_does_not_pass(
    l2: Flat, where: str, family: int
) -> None:
    probe = l2.of(where, family)[1]
    vip, backend = str(probe.target.address), l2.network.backends[1]
    assert ask_tcp(l2.lb, replace(probe.target, port=81)) == "", "refused"
    bits = 32 if family == 4 else 128
    backend.remove_address("lo", f"{vip}/{bits}")
    assert ask_tcp(l2.lb, probe.target, timeout=0.5) == ""
    backend.add_address("lo", f"{vip}/{bits}")
    wait_until(lambda: ask_tcp(l2.lb, probe.target, 0.5) == probe.backend, what="an answer")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_vip_that_another_machine_holds_is_probed_alike(
    lab: Lab, tmp_path: Path, family: int
) -> None:
    """A standby's view: whoever has the VIP gets none of the probes."""
    made = Flat(lab, tmp_path, "routed")
    other = made.network.clients[0]
    bits = {4: 32, 6: 128}
    for vip in VIPS["routed"]:
        other.add_address("eth0", f"{vip}/{bits[6 if ':' in vip else 4]}")
    serve_tcp(other, [80])
    serve_udp(other, [80])
    made.apply()
    for probe in made.of("routed", family):
        assert ask_tcp(made.lb, probe.target) == probe.backend
        assert ask_udp(made.lb, probe.target) == probe.backend
    assert udp_ask(made.lb, VIPS["routed"][family == 6], 80) == other.name, "but ours is not there"


@pytest.mark.parametrize(("where", "family"), PLACES)
def test_nobody_elses_numbers_steer_a_packet(l2: Flat, where: str, family: int) -> None:
    """A mark or a priority alone: its usual way. The probes' mark without a backend: dropped."""
    target = l2.of(where, family)[0].target
    number = target.priority
    with Capture(l2.network.backends[0]) as at_backend:
        for mark, priority in ((number, 0), (0, number), (0, PROBE_MARK), (number, number)):
            other = replace(target, mark=mark, priority=priority)
            assert ask_udp(l2.lb, other, timeout=0.2) == ""
        for priority in (0, 1, number + 0x1000000, PROBE_MARK):
            assert ask_udp(l2.lb, replace(target, priority=priority), timeout=0.2) == ""
        assert ask_udp(l2.lb, target), "the socket works otherwise"
        seen = read_packets(at_backend.frames(outgoing=False))
    assert len(seen) == 1


def test_services_count_no_probes_and_backends_out_of_service_are_probed(
    lab: Lab, tmp_path: Path
) -> None:
    made = Flat(lab, tmp_path, "here")
    made.services["here"]["backends"]["backend-2"]["weight"] = 0
    made.apply()
    before = made.here.status()
    for family in FAMILIES:
        for probe in made.of("here", family):
            assert ask_tcp(made.lb, probe.target) == probe.backend
            assert ask_udp(made.lb, probe.target) == probe.backend
    assert made.here.status() == before


def test_rules_stand_still_when_backends_change(lab: Lab, tmp_path: Path) -> None:
    made = Flat(lab, tmp_path, "here")
    gone = made.services["here"]["backends"].pop("backend-3")
    made.apply()

    def chain() -> str:
        return made.lb.run(["nft", "-a", "list", "chain", "netdev", "tula", "probe"]).stdout

    before = chain()
    old = {probe.backend: probe.target for probe in made.of("here", 4)}
    made.services["here"]["backends"]["backend-3"] = gone
    del made.services["here"]["backends"]["backend-1"]
    made.apply()
    assert chain() == before
    for probe in made.of("here", 4):
        assert ask_tcp(made.lb, probe.target) == probe.backend
    assert ask_tcp(made.lb, old["backend-1"], timeout=0.3) == "", "it is no longer a backend"


def test_without_checks_there_is_no_chain_and_clear_takes_all_back(
    lab: Lab, tmp_path: Path
) -> None:
    made = Flat(lab, tmp_path, "away")
    lb = made.lb
    lb.write_sysctl("net/ipv4/conf/all/rp_filter", 1)
    lb.run(["ip", "rule", "add", "pref", "84", "fwmark", "7", "lookup", "99"])
    lb.run(["ip", "route", "add", "10.99.0.0/24", "dev", "eth0", "table", "21621"])
    lb.run(["nft", "add", "table", "netdev", "other"])

    def settings() -> tuple[str, str, dict[str, str]]:
        held, values = snapshot(lb), sysctls(lb)
        named = ("rp_filter", "accept_local")
        return held["rules"], held["routes"], {n: v for n, v in values.items() if n.endswith(named)}

    before = settings()
    made.apply()
    assert "tula" in lb.run(["nft", "list", "tables"]).stdout
    assert settings() != before
    for probe in made.of("away", 4):
        assert ask_tcp(lb, probe.target) == probe.backend
    assert made.ensure() == []
    made.here.clear()
    assert settings() == before
    assert lb.run(["nft", "list", "tables"]).stdout.split() == ["table", "netdev", "other"]
    del made.services["away"]["health"]
    made.apply()
    assert "probe" not in lb.run(["nft", "list", "table", "netdev", "tula"]).stdout
    assert settings() == before


# Of the kinds that need the VM those whose outer packets differ most; that each carries packets
# is test_tunnels.py's.
PROBED_KINDS = {
    kind: needed
    for kind, needed in LINK_KINDS.items()
    if os.environ.get("TULA_SOAK") or kind[0] == "vxlan" or kind in (("ipip", 4), ("gue", 6))
}


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(kind, marks=pytest.mark.link_kinds(*needed), id=f"{kind[0]}-over-ipv{kind[1]}")
        for kind, needed in PROBED_KINDS.items()
    ],
)
def l3(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Tunnelled, Probing]]:
    """All three services by tunnels of one kind; the balancer has no default route."""
    tunnel, outer = request.param
    with Lab() as lab:
        directory = tmp_path_factory.mktemp("l3")
        base = Tunnelled(lab, directory, tunnel, outer, vips=ALL_VIPS)
        for version, net in ((4, "10.9.0.1"), (6, "fd09::1")):
            far = "10.7.0.0/24" if version == 4 else "fd07::/64"
            base.lb.run(["ip", f"-{version}", "route", "del", "default"])
            base.lb.add_route(far, via=net)
        base.lb.write_sysctl("net/ipv4/conf/eth0/rp_filter", 1)
        made = services(base.web["backends"], *WHERES, forwarding="l3", tunnel=tunnel)
        balancers = {f"lb{v}": address_of(base.lb, v) for v in (4, 6)}
        top = {"load_balancers": balancers, "maglev": {"slots": base.slots}}
        probing = Probing(base.lb, directory / "tula.yaml", made, **top)
        probing.apply()
        for host in base.network.backends:
            make_backend(host, probing.path)
        base.serve()
        yield base, probing


@pytest.mark.parametrize(("where", "family"), PLACES)
def test_in_a_tunnel_each_backend_answers_for_itself(
    l3: tuple[Tunnelled, Probing], where: str, family: int
) -> None:
    base, probing = l3
    probes = probing.of(where, family)
    assert [probe.backend for probe in probes] == ["backend-1", "backend-2"]
    vip, own = VIPS[where][family == 6], address_of(base.lb, family)
    with Capture(base.lb) as at_lb:
        for probe in probes:
            assert ask_tcp(base.lb, probe.target) == probe.backend
            assert ask_udp(base.lb, probe.target) == probe.backend
            assert ping(base.lb, probe.target, 1 + probe.target.priority % 1000)
        outgoing, incoming = at_lb.frames(outgoing=True), at_lb.frames(outgoing=False)
    # Of the other family the last packets of the test before may still come.
    sent = [f for f in map(Outside, outgoing) if f.inside and is_of(f.inside.src, family)]
    received = [p for p in read_packets(incoming) if is_of(p.source, family)]
    assert {frame.what for frame in sent} == {base.web["tunnel"]}
    assert {(frame.inside.src, frame.inside.dst) for frame in sent if frame.inside} == {(own, vip)}
    assert {(p.source, p.destination) for p in received} == {(vip, own)}


@pytest.mark.parametrize("family", FAMILIES)
def test_in_a_tunnel_large_requests_arrive_whole_with_right_checksums(
    l3: tuple[Tunnelled, Probing], family: int
) -> None:
    base, probing = l3
    probe = probing.of("here", family)[0]
    sink = Sink(base.network.backends[0], [8080], [str(probe.target.address)]).start()
    set_offload(base.lb, tx=False, tso=False, gso=False)
    try:
        with Capture(base.lb) as at_lb:
            target = replace(probe.target, port=8080)
            assert ask_tcp(base.lb, target, size=100_000) == "100000"
            sent = [f.inside for f in map(Outside, at_lb.frames(outgoing=True)) if f.inside]
    finally:
        set_offload(base.lb, tx=True, tso=True, gso=True)
        sink.close()
    assert len(sent) > 80
    assert wrong_checksums(sent) == []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_backend_whose_tunnels_end_is_gone_does_not_answer(
    l3: tuple[Tunnelled, Probing], family: int
) -> None:
    base, probing = l3
    probe, host = probing.of("routed", family)[0], base.network.backends[0]
    vip = str(probe.target.address)
    table = "table inet broken { chain in { type filter hook prerouting priority -400; "
    host.run(["nft", f"{table} {'ip' if family == 4 else 'ip6'} daddr {vip} drop; }}; }}"])
    assert ask_tcp(base.lb, probe.target, timeout=0.5) == ""
    host.run(["nft", "delete", "table", "inet", "broken"])
    wait_until(lambda: ask_tcp(base.lb, probe.target, 0.5) == probe.backend, what="an answer")


def test_while_a_device_is_gone_probes_end_here(l3: tuple[Tunnelled, Probing]) -> None:
    """They are dropped: a server of the balancer's own never answers in a backend's place."""
    base, probing = l3
    with base.lb.netlink() as netlink:
        links = [x for x in netlink.get_links() if x.get("ifname").startswith("tula")]
        for link in links:
            netlink.link("del", index=link["index"])
    own = serve_tcp(base.lb, [80])
    for family in FAMILIES:
        probe = probing.of("here", family)[0]
        assert ask_tcp(base.lb, probe.target, timeout=0.5) == ""
    own.close()
    probing.apply()
    for family in FAMILIES:
        probe = probing.of("here", family)[0]
        wait_until(lambda probe=probe: ask_tcp(base.lb, probe.target, 1.0), what="an answer")


def test_the_reset_of_a_probe_reaches_the_backend_too(l2: Flat) -> None:
    """It carries the same numbers; the ACK of a socket in TIME_WAIT would not (Attempt.opened)."""
    probe = l2.of("here", 4)[0]
    with Capture(l2.network.backends[0]) as at_backend:
        with probe_socket(l2.lb, probe.target, socket.SOCK_STREAM) as made:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            made.connect((str(probe.target.address), 80))
            made.recv(100)

        def flags() -> str:
            frames = map(Ether, at_backend.frames(outgoing=False))
            return " ".join(str(frame[TCP].flags) for frame in frames if TCP in frame)

        wait_until(lambda: re.fullmatch(r"S .*\bRA?", flags()), what="the reset")
