"""The balancer owns its VIPs: it answers for them, tells the network, and never speaks by them.

::

    client-1            lb  VIP 10.9.0.100, fd09::100       backend-1, -2      (old)
        │               │ eth0         │ eth1                │  (VIPs on lo)    │
    ════╧═══════════════╧══════════════╪═════════════════════╧══════════════════╧═  lan
                                     ══╧════════════════╤═════  dmz
                                                      guest
"""

from __future__ import annotations

from pathlib import Path

import pytest

from support.arp_nd import announcements_of, answers_for, neighbour, probes_for, settled
from support.in_process import InProcess, call_tula
from support.lab_configurations import service_of, write_config
from support.snapshots import snapshot
from tula.lab import (
    Capture,
    Host,
    Lab,
    LabError,
    Network,
    flat,
    routed,
    serve_tcp,
    tcp_ask,
    wait_until,
)

pytestmark = pytest.mark.kernel

FAMILIES = [4, 6]


@pytest.fixture
def network(lab: Lab) -> Network:
    made = flat(lab, clients=1, backends=2)
    dmz = lab.switch("dmz")
    lab.connect(made.lb, dmz, "10.7.0.2/24", "fd07::2/64", ifname="eth1")
    lab.host("guest", dmz, "10.7.0.9/24", "fd07::9/64")
    lab.ready()
    serve(made)
    return made


def serve(network: Network) -> None:
    for backend in network.backends:
        serve_tcp(backend, [80])


def configuration(network: Network, path: Path, **keys: object) -> Path:
    """web, with these keys, where eth0 and eth1 are listed as far as they are there."""
    listed = tuple(name for name in network.lb.interfaces() if name != "lo")
    return write_config(path / "tula.yaml", {"web": service_of(network, **keys)}, listed)


def held(host: Host) -> dict[str, list[str]]:
    """The VIPs among the host's addresses, by interface."""
    shown = host.run(["ip", "-o", "address"]).stdout.splitlines()
    found: dict[str, list[str]] = {}
    for _, name, _, address, *_ in (line.split() for line in shown):
        if address.endswith((".100/32", "::100/128")):
            found.setdefault(name, []).append(address)
    return found


def test_it_answers_for_them_and_nobody_else_does(network: Network, tmp_path: Path) -> None:
    call_tula(network.lb, "apply", "-f", configuration(network, tmp_path))
    assert held(network.lb) == {"eth0": ["10.9.0.100/32", "fd09::100/128"]}
    network.client.run(["ip", "neigh", "flush", "dev", "eth0"])
    with Capture(network.client) as capture:
        for vip in network.vips:
            assert tcp_ask(network.client, vip, 80).startswith("backend")
            assert neighbour(network.client, vip) == network.lb.mac()
    for vip in network.vips:
        macs = {mac for mac, _ in answers_for(vip, capture.frames(outgoing=False))}
        assert macs == {network.lb.mac()}


def test_each_apply_announces_at_least_twice(network: Network, tmp_path: Path) -> None:
    lb, path = network.lb, configuration(network, tmp_path)
    with Capture(network.client) as capture:
        call_tula(lb, "apply", "-f", path)
        told = announcements_of(lb.mac(), settled(lb, capture))
        assert sorted(told) == sorted([*network.vips] * 3), "once at once, and twice behind it"
        capture.clear()
        assert call_tula(lb, "apply", "-f", path).stdout == "nothing changed\n"
        told = announcements_of(lb.mac(), settled(lb, capture))
        assert sorted(told) == sorted([*network.vips] * 2), "for who has not heard"
        capture.clear()
        more = [*network.vips, "10.9.0.101", "fd09::101"]
        call_tula(lb, "apply", "-f", configuration(network, tmp_path, vip=more))
        told = announcements_of(lb.mac(), settled(lb, capture))
    assert sorted(told) == sorted(more * 2 + more[2:])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_neighbours_follow_at_once(network: Network, tmp_path: Path, family: int) -> None:
    """Another machine held the VIP and is cut off: no client waits until its entry is too old."""
    vip = network.vip4 if family == 4 else network.vip6
    client, lb = network.client, network.lb
    old = network.lab.host("old", network.lan, "10.9.0.3/24", "fd09::3/64")
    network.lab.ready()
    old.add_address("eth0", f"{vip}/{32 if family == 4 else 128}")
    serve_tcp(old, [80])
    assert tcp_ask(client, vip, 80) == "old"
    old.set_cable("eth0", False)
    assert neighbour(client, vip) == old.mac()
    with pytest.raises(LabError):
        tcp_ask(client, vip, 80, timeout=0.2)
    InProcess(lb).apply(configuration(network, tmp_path))
    wait_until(lambda: neighbour(client, vip) == lb.mac(), timeout=10, what="the new MAC")
    assert tcp_ask(client, vip, 80).startswith("backend")


def test_no_duplicate_address_detection(network: Network, tmp_path: Path) -> None:
    """Another balancer may hold the VIP as well, and nobody may wait for a second."""
    lb = network.lb
    for name, value in (("accept_dad", 1), ("dad_transmits", 1), ("router_solicitation_delay", 0)):
        lb.write_sysctl(f"net/ipv6/conf/eth0/{name}", value)
    second = network.lab.host("second", network.lan, "10.9.0.3/24", "fd09::3/64")
    network.lab.ready()
    second.add_address("eth0", "fd09::100/128")
    with Capture(network.client) as capture:
        InProcess(lb).apply(configuration(network, tmp_path))
        shown = lb.run(["ip", "-6", "address", "show", "dev", "eth0", "to", "fd09::100"]).stdout
        assert "fd09::100/128" in shown
        assert "tentative" not in shown
        assert "dadfailed" not in shown
        # An address that is added without care is probed for, so a probe would have been seen.
        lb.run(["ip", "address", "add", "fd09::55/64", "dev", "eth0"])
        wait_until(lambda: probes_for("fd09::55", capture.frames()), what="a probe")
        assert probes_for("fd09::100", capture.frames()) == []


# ── Where they are ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("family", FAMILIES)
def test_a_routed_vip_is_nobodys_address(lab: Lab, tmp_path: Path, family: int) -> None:
    vips = ("192.0.2.10", "2001:db8:2::10")
    network = routed(lab, clients=1, backends=2, vips=vips)
    serve(network)
    vip, lb = vips[FAMILIES.index(family)], network.lb
    assert network.router is not None
    network.router.add_route(vip, "10.9.0.2" if family == 4 else "fd09::2")
    before = snapshot(lb)["addresses"]
    with Capture(network.backends[0]) as capture:
        InProcess(lb).apply(configuration(network, tmp_path, vip=vip, announce=False))
        assert announcements_of(lb.mac(), settled(lb, capture)) == []
    assert snapshot(lb)["addresses"] == before
    assert tcp_ask(network.client, vip, 80).startswith("backend")


def test_a_vip_moves_between_interfaces(network: Network, tmp_path: Path) -> None:
    lb, tula = network.lb, InProcess(network.lb)
    macs = {name: lb.mac(name) for name in ("eth0", "eth1")}
    witnesses = {"eth0": network.client, "eth1": network.lab["guest"]}
    for name in ("eth1", "eth0", "eth1", True):
        where = "eth0" if name is True else str(name)
        with Capture(witnesses[where]) as capture:
            tula.apply(configuration(network, tmp_path, announce=name))
            told = announcements_of(macs[where], settled(lb, capture, where))
        assert sorted(told) == sorted(network.vips)
        assert held(lb) == {where: ["10.9.0.100/32", "fd09::100/128"]}
        assert not tula.apply(configuration(network, tmp_path, announce=name))
    assert tcp_ask(network.client, network.vip4, 80).startswith("backend")
    assert tcp_ask(network.client, network.vip6, 80).startswith("backend")


def test_a_vip_that_leaves_the_document_goes(network: Network, tmp_path: Path) -> None:
    lb, tula, client = network.lb, InProcess(network.lb), network.client
    tula.apply(configuration(network, tmp_path))
    tula.apply(configuration(network, tmp_path, vip=network.vip4))
    assert held(lb) == {"eth0": ["10.9.0.100/32"]}
    client.run(["ip", "neigh", "flush", "dev", "eth0"])
    assert tcp_ask(client, network.vip4, 80).startswith("backend")
    with Capture(client) as capture:
        with pytest.raises(LabError):
            tcp_ask(client, network.vip6, 80, timeout=0.3)
        assert answers_for(network.vip6, settled(lb, capture)) == []
