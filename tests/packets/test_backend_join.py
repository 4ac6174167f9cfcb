"""Bare machines join and serve; what they were is put back when they leave.

::

    l2:   client-1      lb  VIP 10.9.0.100, fd09::100      backend-1, -2
              │         │                                     │
          ════╧═════════╧═════════════════════════════════════╧════  lan

    l3:   client-1 ── wan ── router ── far ── backend-1, -2
                               │
                          lan ═╧═ lb
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from scapy.layers.inet6 import ICMPv6ND_NS, ICMPv6NDOptSrcLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from support.arp_nd import answers_for, settled
from support.joined import KINDS, Joined, agent, alone
from support.machines import differences, machine
from support.packets import address_of, read_packets
from tula.lab import Capture, Lab, flows, send_frame, serve_tcp, serve_udp

pytestmark = pytest.mark.kernel

IN_VM = set(KINDS) if os.environ.get("TULA_SOAK") else {("gue", 4), ("gre", 6)}
"""A quarter of a minute each in the emulated VM: with ports, and without. test_backend_life.py has
a machine join with all of its kinds at once, and leave."""
JOINED = [kind for kind in KINDS if kind[0] in ("l2", "vxlan") or kind in IN_VM]

DEVICE = "tula-vxlan-rmlx"
"""The backend's end of VXLAN with the default id and port, over IPv4."""


@pytest.fixture
def bare(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[Joined]:
    """As many as the test is asked for; l2 without."""
    kind, outer = getattr(request, "param", ("l2", 4))
    return Joined(lab, tmp_path_factory.mktemp("joined"), kind, outer)


@pytest.mark.parametrize(("kind", "outer"), [alone(*kind) for kind in JOINED])
def test_from_bare_to_serving_and_back(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory, kind: str, outer: int
) -> None:
    # Programs start slowly in the emulated VM: one backend there, two here.
    backends = 1 if os.environ.get("TULA_VM") else 2
    joined = Joined(lab, tmp_path_factory.mktemp("joined"), kind, outer, backends)
    before = [machine(host) for host in joined.backends]
    joined.join()
    for host in joined.backends:
        serve_tcp(host, [80])
        serve_udp(host, [80])
    ports = range(20000, 20000 + 10 * backends)
    with Capture(joined.lb) as at_lb:
        for vip in joined.network.vips:
            for protocol in ("tcp", "udp"):
                answered = flows(joined.client, vip, 80, ports, protocol)
                assert set(answered.values()) == {host.name for host in joined.backends}
        sources = {packet.source for packet in read_packets(at_lb.frames())}
    assert not sources & set(joined.network.vips), "answers go straight to the client"
    for host in joined.backends:
        assert agent(host, "join", "-f", joined.path)["changed"] is False
        parts = agent(host, "status")["parts"]
        assert parts
        assert all(part["ok"] for part in parts)
        assert agent(host, "leave")["changed"] is True
        assert agent(host, "leave")["changed"] is False
    after = [machine(host) for host in joined.backends]
    for one, other in zip(before, after, strict=True):
        assert differences(one, other) == {}


def test_the_balancer_alone_answers_for_the_vips(bare: Joined) -> None:
    bare.join()
    client, network = bare.client, bare.network
    for host in bare.backends:  # they speak to the client from the VIP: nobody learns its place
        serve_tcp(host, [80])
    flows(client, network.vip4, 80, range(20000, 20010))
    client.run(["ip", "neigh", "flush", "all"])
    own, mac = address_of(client, 4), client.mac()
    asks = [
        Ether(dst="ff:ff:ff:ff:ff:ff", src=mac) / ARP(op=1, psrc=own, hwsrc=mac, pdst=network.vip4),
        Ether(dst="33:33:ff:00:01:00", src=mac)
        / IPv6(src=address_of(client, 6), dst="ff02::1:ff00:100", hlim=255)
        / ICMPv6ND_NS(tgt=network.vip6)
        / ICMPv6NDOptSrcLLAddr(lladdr=mac),
    ]
    with Capture(client) as capture:
        for ask in asks:
            send_frame(client, "eth0", bytes(ask))
        frames = [f for host in bare.backends for f in settled(host, capture)]
        frames = settled(bare.lb, capture)
    for vip in network.vips:
        assert {who for who, _ in answers_for(vip, frames)} == {bare.lb.mac()}


def test_a_changed_document_changes_only_what_differs(bare: Joined) -> None:
    host = bare.backends[0]
    before = machine(host)
    agent(host, "join", "-f", bare.configuration())
    assert agent(host, "join", "-f", bare.configuration())["steps"] == []
    web = bare.services["web"]
    web["vip"] = ["10.9.0.101", "fd09::100"]
    steps = agent(host, "join", "-f", bare.configuration())["steps"]
    assert [(step["verb"], step["name"]) for step in steps] == [
        ("add", "10.9.0.101 on lo"),
        ("remove", "10.9.0.100 on lo"),
    ]
    bare.services["far"] = {**web, "ports": [81], "forwarding": "l3", "tunnel": "vxlan"}
    steps = agent(host, "join", "-f", bare.configuration())["steps"]
    assert [(step["verb"], step["what"]) for step in steps] == [
        ("add", "table"),
        ("add", "device"),
        ("add", "address"),
    ]
    # A second balancer: the filter alone, in one transaction.
    path = bare.configuration(load_balancers={"lb1": "10.9.0.2", "lb2": "10.9.0.3"})
    assert [step["what"] for step in agent(host, "join", "-f", path)["steps"]] == ["table"]
    del bare.services["far"]
    verbs = {step["verb"] for step in agent(host, "join", "-f", bare.configuration())["steps"]}
    assert verbs == {"remove"}
    agent(host, "leave")
    assert differences(before, machine(host)) == {}


def test_what_somebody_spoilt_is_told_and_repaired(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> None:
    joined = Joined(lab, tmp_path_factory.mktemp("joined"), "vxlan", 4)
    host = joined.backends[0]
    path = joined.configuration()
    agent(host, "join", "-f", path)
    spoil = {
        "10.9.0.100 on lo": "ip address del 10.9.0.100/32 dev lo",
        "net/ipv4/conf/all/arp_ignore": "sysctl -w net.ipv4.conf.all.arp_ignore=0",
        "tula_backend": "nft flush chain inet tula_backend answer",
        DEVICE: f"sysctl -w net.ipv4.conf.{DEVICE}.rp_filter=1",
    }
    for name, command in spoil.items():
        host.run(command.split())
        faults = {p["name"]: p["state"] for p in agent(host, "status")["parts"] if not p["ok"]}
        assert set(faults) == {name}
        agent(host, "join")
        assert all(part["ok"] for part in agent(host, "status")["parts"])
    host.run(["ip", "link", "set", DEVICE, "down"])
    agent(host, "join")
    host.run(["ip", "link", "del", DEVICE])
    host.run(["ip", "link", "add", DEVICE, "type", "vxlan", "id", "7", "dstport", "4789"])
    states = {p["name"]: p["state"] for p in agent(host, "status")["parts"] if not p["ok"]}
    assert states[DEVICE].startswith("has ")
    agent(host, "join")
    assert all(part["ok"] for part in agent(host, "status")["parts"])


def test_what_the_machine_had_of_its_own_stays(
    lab: Lab, tmp_path_factory: pytest.TempPathFactory
) -> None:
    joined = Joined(lab, tmp_path_factory.mktemp("joined"), "vxlan", 4)
    host = joined.backends[0]
    for command in (
        "sysctl -w net.ipv4.conf.all.arp_ignore=2",
        "sysctl -w net.ipv4.conf.all.arp_announce=1",
        "sysctl -w net.ipv4.conf.all.rp_filter=1",
        "ip link add own type vxlan id 7 dstport 4789 local 10.7.0.11",
        "ip link set own up",
        "ip address add 10.9.0.100/32 dev lo",
        "nft add table inet mine",
        "nft add chain inet mine in { type filter hook input priority 0; }",
        "nft add rule inet mine in counter",
        "ip rule add pref 77 from 10.7.0.11 lookup main",
    ):
        host.run(command.split())
    before = machine(host)
    path = joined.configuration()
    agent(host, "join", "-f", path)
    serve_tcp(host, [80], joined.network.vips)
    joined.services["web"]["backends"].pop("backend-2")
    joined.balancer.apply(joined.configuration())
    for vip in joined.network.vips:  # with strict filtering on all other interfaces
        assert len(flows(joined.client, vip, 80, range(20000, 20010))) == 10
    assert host.read_sysctl("net.ipv4.conf.all.rp_filter") == "1"
    agent(host, "leave")
    after = machine(host)
    rule = "counter packets"
    before, after = ({k: _counted(v, rule) for k, v in m.items()} for m in (before, after))
    assert differences(before, after) == {}


def _counted(text: object, word: str) -> object:
    """Without the lines that count."""
    if not isinstance(text, str):
        return text
    return "\n".join(line for line in text.splitlines() if word not in line)


def test_wrong_input_changes_nothing(bare: Joined) -> None:
    host, path = bare.backends[0], bare.configuration()
    before = machine(host)
    stranger = bare.client
    said = agent(stranger, "join", "-f", path, status=2)["error"]
    assert "no backend" in said
    assert "its backends are: backend-1, backend-2" in said
    said = agent(host, "join", "-f", path, "--as", "nobody", status=2)["error"]
    assert "its backends are: backend-1, backend-2" in said
    assert "this is another one" in agent(host, "join", "-f", path, "--persist", status=2)["error"]
    assert "name the configuration" in agent(host, "join", status=2)["error"]
    host.add_address("eth0", "10.9.0.100/24", "fd09::100/64")
    said = agent(host, "join", "-f", path, status=2)["error"]
    assert "10.9.0.100 on eth0 and fd09::100 on eth0, where it would announce them" in said
    host.run(["sh", "-ec", said.partition("(")[2].partition(")")[0]])
    assert agent(host, "join", "-f", path, "--dry-run")["steps"]
    assert differences(before, machine(host)) == {}


def test_it_joins_only_as_what_it_is(bare: Joined) -> None:
    host, path = bare.backends[0], bare.configuration()
    machines = (host, bare.lb, bare.client)
    before = [machine(each) for each in machines]
    for stranger in (bare.client, bare.backends[1]):
        said = agent(stranger, "join", "-f", path, "--as", "backend-1", status=2)["error"]
        assert said.count("\n") == 1
        assert "has no address of the backend backend-1" in said
        assert address_of(host, 4) in said
    said = agent(bare.lb, "join", "-f", path, status=2)["error"]
    assert "this machine is the balancer lb4 (10.9.0.2)" in said
    said = agent(bare.lb, "join", "-f", path, "--as", "backend-1", status=2)["error"]
    assert "has no address of the backend backend-1" in said
    assert [differences(*pair) for pair in zip(before, map(machine, machines), strict=True)] == [
        {}
    ] * 3
    # A backend's own address may be on loopback, as where each machine announces it to a router.
    path = bare.configuration()
    own = [f"{address_of(host, 4)}/24", f"{address_of(host, 6)}/64"]
    host.remove_address("eth0", *own)
    host.add_address(
        "lo",
        *(each.partition("/")[0] + end for each, end in zip(own, ("/32", "/128"), strict=True)),
    )
    assert agent(host, "join", "-f", path)["backends"] == ["backend-1"]
    assert agent(host, "join", "-f", path)["changed"] is False


def test_without_ipv6_it_says_so(bare: Joined) -> None:
    host, path = bare.backends[0], bare.configuration()
    before = machine(host)
    host.write_sysctl("net.ipv6.conf.lo.disable_ipv6", 1)
    said = agent(host, "join", "-f", path, status=2)["error"]
    assert "IPv6 is disabled on this machine (net.ipv6.conf.lo.disable_ipv6 = 1)" in said
    assert "fd09::100" in said
    assert "RTNETLINK" not in said
    host.write_sysctl("net.ipv6.conf.lo.disable_ipv6", 0)
    assert differences(before, machine(host)) == {}
    agent(host, "join", "-f", path)
    host.write_sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    states = {part["name"]: part["state"] for part in agent(host, "status")["parts"]}
    assert states["fd09::100 on lo"].startswith("IPv6 is disabled on this machine")
    assert states["10.9.0.100 on lo"] == "in place"
