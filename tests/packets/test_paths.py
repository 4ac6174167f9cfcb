"""Ways in and out of the balancer: several interfaces, replaced cards, interfaces made anew.

::

    client-1       backend-1, -2                     backend-3, -4       client-far
        │               │                                 │                  │
    ════╧═══════╤═══════╧══════╤═══  lan       ═══╤═══════╧══════╤═══════════╧══  far
                │ eth0         │ eth0             │ eth1         │ eth1
                │           router ───────────────│──────────────┘
                lb ───────────────────────────────┘

    lan  10.9.0.0/24, fd09::/64          far  10.7.0.0/24, fd07::/64

Answers go from a backend to its own switch's client, or by the router; never by the balancer.
"""

from __future__ import annotations

import json
from collections import Counter
from contextlib import ExitStack
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from support.in_process import InProcess, call_tula
from support.lab_configurations import backends_of, service_of, write_config
from support.packets import FAMILIES, PROTOCOLS, address_of, read_packets, vip_of
from tula.kernel.announce import advertisement, arp_announcement
from tula.lab import (
    VIPS,
    Capture,
    Host,
    Lab,
    LabError,
    Network,
    flat,
    flows,
    prepare_backend,
    send_frame,
    serve_tcp,
    serve_udp,
    tcp_ask,
    wait_until,
)

pytestmark = pytest.mark.kernel

FAR = ("10.7.0.100", "fd07::100")
"""VIPs in the subnet of ``far``."""
ROUTED = ("198.51.100.10", "2001:db8::10")
"""VIPs of no subnet."""
LB = {"eth0": ("10.9.0.2/24", "fd09::2/64"), "eth1": ("10.7.0.2/24", "fd07::2/64")}


@pytest.fixture
def network(lab: Lab) -> Network:
    """The network above; the far client is the second, the far backends are the last two."""
    made = flat(lab, clients=1, backends=2, vips=[*VIPS, *FAR, *ROUTED])
    far = lab.switch("far")
    lab.connect(made.lb, far, *LB["eth1"], ifname="eth1")
    for name, number in (("backend-3", 13), ("backend-4", 14), ("client-far", 201)):
        host = lab.host(
            *(name, far, f"10.7.0.{number}/24", f"fd07::{number}/64"),
            gateway=["10.7.0.1", "fd07::1"],
        )
        (made.clients if name == "client-far" else made.backends).append(host)
    for backend in made.backends[2:]:
        prepare_backend(backend, made.vips)
    for backend in made.backends:
        serve_tcp(backend, [80], made.vips)
        serve_udp(backend, [80], made.vips)
    lab.router(
        "router", (made.lan, ["10.9.0.1/24", "fd09::1/64"]), (far, ["10.7.0.1/24", "fd07::1/64"])
    )
    for host in (made.client, *made.backends[:2]):
        host.add_route("default", via="10.9.0.1")
        host.add_route("default", via="fd09::1")
    lab.ready()
    return made


def apply(
    network: Network, directory: Path, interfaces: tuple[str, ...] = ("eth0",), **keys: Any
) -> Path:
    """One service for both protocols."""
    service = service_of(network, **{"vip": list(VIPS), "protocol": ["tcp", "udp"], **keys})
    configuration = write_config(directory / "tula.yaml", {"web": service}, interfaces)
    InProcess(network.lb).apply(configuration)
    return configuration


def who_answers(client: Host, vip: str, count: int = 60) -> Counter[str]:
    """By the backend's name: how many of the flows over TCP and UDP it answered."""
    found = Counter[str]()
    for protocol in PROTOCOLS:
        found.update(flows(client, vip, 80, count, protocol).values())
    return found


def some_answers(client: Host, vip: str) -> int:
    """Of 20 UDP flows, how many are answered at once."""
    return len(flows(client, vip, 80, 20, "udp", timeout=0.2, allow_loss=True))


@pytest.mark.parametrize("which", [slice(1, 3), slice(2, 4)], ids=["both", "far"])
@pytest.mark.parametrize("family", FAMILIES)
def test_backends_on_another_interface_answer_by_themselves(
    network: Network, tmp_path: Path, family: int, which: slice
) -> None:
    backends, client, lb = network.backends[which], network.client, network.lb
    apply(network, tmp_path, backends=backends_of(*backends))
    vip = vip_of(network, family)
    with ExitStack() as stack:
        at = {b.name: stack.enter_context(Capture(b)) for b in backends}
        at_client = stack.enter_context(Capture(client))
        at_lb = [stack.enter_context(Capture(lb, ifname)) for ifname in LB]
        answered = who_answers(client, vip)
    assert set(answered) == {backend.name for backend in backends}
    assert answered.total() == 120
    for backend in backends:
        out = "eth0" if backend in network.backends[:2] else "eth1"
        arrived = read_packets(at[backend.name].frames(outgoing=False))
        assert {packet.from_mac for packet in arrived} == {lb.mac(out)}
        assert {packet.hops for packet in arrived} == {63}
    by = {p.from_mac for p in read_packets(at_client.frames(outgoing=False))}
    near = {backend.mac() for backend in backends if backend in network.backends[:2]}
    assert by == near | {network.lab["router"].mac("eth0")}
    assert not [p for c in at_lb for p in read_packets(c.frames()) if p.source == vip]


@pytest.mark.parametrize("announced", [True, False], ids=["announced", "silent"])
def test_a_backends_card_is_replaced_and_no_apply_is_needed(
    network: Network, tmp_path: Path, announced: bool
) -> None:
    one, lb = network.backends[0], network.lb
    if not announced:  # so that the kernel finds out by itself in 2 seconds, and not in 40
        for family in ("ipv4", "ipv6"):
            for name, value in (("base_reachable_time_ms", 100), ("retrans_time_ms", 100)):
                lb.write_sysctl(f"net/{family}/neigh/eth0/{name}", value)
            lb.write_sysctl(f"net/{family}/neigh/eth0/delay_first_probe_time", 1)
    apply(network, tmp_path, backends=backends_of(one))
    for vip in VIPS:
        assert who_answers(network.client, vip).total() == 120
    addresses = [address_of(one, family) for family in FAMILIES]
    old = one.mac()
    one.remove_interface("eth0")
    network.lab.connect(one, network.lan, f"{addresses[0]}/24", f"{addresses[1]}/64")
    one.add_route("default", via="10.9.0.1")
    one.add_route("default", via="fd09::1")
    network.lab.ready()
    new = one.mac()
    assert new != old
    if announced:
        mac = bytes.fromhex(new.replace(":", ""))
        for address in map(ip_address, addresses):
            make = arp_announcement if address.version == 4 else advertisement
            send_frame(one, "eth0", make(address, mac))  # type: ignore[operator]
    for vip in VIPS:
        wait_until(lambda vip=vip: some_answers(network.client, vip) == 20, timeout=60)
        with Capture(one) as capture:
            assert who_answers(network.client, vip) == {one.name: 120}
        arrived = read_packets(capture.frames(outgoing=False))
        assert {(p.from_mac, p.to_mac) for p in arrived} == {(lb.mac(), new)}


def test_clients_come_in_by_every_listed_interface(network: Network, tmp_path: Path) -> None:
    near, far = network.clients
    vips = [*VIPS, *FAR]
    far.add_route("10.9.0.100", via="10.7.0.2")
    far.add_route("fd09::100", via="fd07::2")
    apply(network, tmp_path)
    for vip in VIPS:
        assert who_answers(near, vip).total() == 120
        with pytest.raises(LabError, match="refused"):  # by the host itself: eth1 is not listed
            tcp_ask(far, vip, 80)
    apply(network, tmp_path, interfaces=("eth0", "eth1"), vip=vips)
    for client, asked in ((near, VIPS), (far, vips)):
        for vip in asked:
            answered = who_answers(client, vip)
            assert answered.total() == 120
            assert set(answered) == {backend.name for backend in network.backends}


@pytest.mark.parametrize("which", [slice(4), slice(2, 4)], ids=["both", "far"])
@pytest.mark.parametrize("ifname", LB)
def test_apply_repairs_what_an_interface_made_anew_broke(
    network: Network, tmp_path: Path, ifname: str, which: slice
) -> None:
    lb, backends = network.lb, network.backends[which]
    configuration = apply(network, tmp_path, backends=backends_of(*backends))
    before = [who_answers(network.client, vip) for vip in VIPS]
    index = lb.index(ifname)
    lb.remove_interface(ifname)
    switch = network.lab.switches["lan" if ifname == "eth0" else "far"]
    network.lab.connect(lb, switch, *LB[ifname], ifname=ifname)
    network.lab.ready()
    assert lb.index(ifname) != index
    assert some_answers(network.client, VIPS[0]) < 20, "it is broken"
    assert json.loads(call_tula(lb, "apply", "--json").stdout)["changed"], (
        "of the last configuration"
    )
    assert [who_answers(network.client, vip) for vip in VIPS] == before
    assert not InProcess(lb).apply(configuration)


def test_a_vip_that_is_routed_here_is_on_no_interface(network: Network, tmp_path: Path) -> None:
    client, lb = network.client, network.lb
    apply(network, tmp_path, vip=list(ROUTED), announce=False)
    for vip, via in zip(ROUTED, ("10.9.0.2", "fd09::2"), strict=True):
        client.add_route(vip, via=via)
        answered = who_answers(client, vip)
        assert answered.total() == 120
        assert set(answered) == {backend.name for backend in network.backends}
        assert f"{vip}/" not in lb.run(["ip", "address"]).stdout
