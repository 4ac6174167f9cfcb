"""Faults of L2 set-ups are found by name, fixed as printed, and gone.

::

    client ── router ══╤════════════╤══════════════╤══  lan
                       lb       backend-1, -2    other, another
                  VIP 10.9.0.100, fd09::100
"""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from support.doctor import Fault, Setup, check_found, l2_setup
from support.lab_configurations import write_config
from tula.lab import Host, Lab, serve_tcp

pytestmark = pytest.mark.kernel


def other(setup: Setup, number: int = 7) -> Host:
    """A machine on the same link with no part in the configuration."""
    name = f"other-{number}"
    if name in setup.network.lab.hosts:
        return setup.network.lab.hosts[name]
    addresses = (f"10.9.0.{number}/24", f"fd09::{number}/64")
    return setup.network.lab.host(name, setup.network.lan, *addresses)


def has_vip(number: int, version: int) -> Fault:
    """That machine has the VIP too."""
    address = "10.9.0.100/32" if version == 4 else "fd09::100/128"
    return Fault(
        f"conflict-{version}",
        lambda setup: other(setup, number).add_address("eth0", address),
        "arp-conflict" if version == 4 else "nd-conflict",
        "eth0",
        by_hand=lambda setup: other(setup, number).remove_address("eth0", address),
    )


def _loud(setup: Setup) -> None:
    for scope in ("all", "eth0"):
        setup.first.write_sysctl(f"net/ipv4/conf/{scope}/arp_ignore", 0)


def _names_the_vip(setup: Setup) -> None:
    """It must ask for its router's MAC before it answers, and asks from the VIP."""
    for scope in ("all", "eth0"):
        setup.first.write_sysctl(f"net/ipv4/conf/{scope}/arp_announce", 0)
    setup.first.run(["ip", "neigh", "flush", "all"])


def _twice(setup: Setup) -> None:
    for number in (7, 8):
        other(setup, number).add_address("eth0", "10.9.0.100/32")


def _once(setup: Setup) -> None:
    for number in (7, 8):
        other(setup, number).remove_address("eth0", "10.9.0.100/32")


def _stop(setup: Setup) -> None:
    setup.servers["backend-1", 80].close()


def _start(setup: Setup) -> None:
    setup.servers["backend-1", 80] = serve_tcp(setup.first, [80])


def _elsewhere(setup: Setup) -> None:
    _stop(setup)
    setup.servers["backend-1", 80] = serve_tcp(setup.first, [80], ["10.9.0.11", "fd09::11"])


def _everywhere(setup: Setup) -> None:
    _stop(setup)
    _start(setup)


def _filter(rule: str) -> object:
    chain = f"chain in {{ type filter hook input priority 0; {rule}; }}"
    text = f"table inet broken {{\n{chain}\n}}\n"
    return lambda setup: setup.nft(setup.first, text)


def _no_filter(setup: Setup) -> None:
    setup.first.run(["nft", "delete", "table", "inet", "broken"])


def _through_the_balancer(setup: Setup) -> None:
    setup.first.run(["ip", "route", "replace", "default", "via", "10.9.0.2"])


def _vip_on_eth0(address: str) -> object:
    def make(setup: Setup) -> None:
        setup.first.remove_address("lo", address)
        setup.first.add_address("eth0", address)

    return make


def _foreign(where: str) -> object:
    hook = f"type filter hook {where} device eth0 priority -600;"
    text = f"table netdev guard {{\nchain early {{ {hook} ip daddr 10.9.0.100 drop; }}\n}}\n"
    return lambda setup: setup.nft(setup.lb, text)


def _allowed(setup: Setup) -> None:
    """By whoever loaded it: the doctor deletes no rules of others."""
    setup.lb.run(["nft", "delete", "table", "netdev", "guard"])


def _narrow(setup: Setup) -> None:
    """The switch passes no more than 1,400 bytes to backend-1."""
    _mtu(setup, 1400)


def _wide(setup: Setup) -> None:
    _mtu(setup, 1500)


def _mtu(setup: Setup, mtu: int) -> None:
    with setup.network.lan.netlink() as netlink:
        index = netlink.link_lookup(ifname="backend-1.eth0")[0]
        netlink.link("set", index=index, mtu=mtu)


def _another_document(setup: Setup) -> None:
    """On the disk, and not applied."""
    setup.services["web"]["backends"]["backend-1"]["weight"] = 7
    setup.write()


def _backend_elsewhere(address: str) -> object:
    def make(setup: Setup) -> None:
        setup.services["web"]["backends"]["far-away"] = {"address": address}
        setup.services["web"]["vip"] = ["10.9.0.100"]
        setup.write()

    return make


def _all_right(setup: Setup) -> None:
    setup.services["web"]["backends"].pop("far-away", None)
    setup.services["web"]["vip"] = list(setup.network.vips)
    setup.top["load_balancers"] = {"lb4": "10.9.0.2", "lb6": "fd09::2"}
    setup.top.pop("connections", None)
    setup.interfaces = ("eth0",)
    setup.apply()


def _balancer(name: str, address: str, *, alone: bool) -> object:
    def make(setup: Setup) -> None:
        known = {} if alone else setup.top["load_balancers"]
        setup.top["load_balancers"] = {**known, name: address}
        setup.apply()

    return make


def _interface(setup: Setup) -> None:
    setup.interfaces = ("eth0", "eth7")
    setup.write()


def _second_interface(setup: Setup) -> None:
    """One that is up, used, and then down."""
    spare = setup.network.lab.switch("spare")
    setup.lb.add_interface(spare, ifname="eth1", mac="02:00:00:00:77:01")
    setup.network.lab.ready()
    setup.interfaces = ("eth0", "eth1")
    setup.apply()
    setup.lb.set_link("eth1", False)


def _many_flows(setup: Setup) -> None:
    setup.top["connections"] = {"size": 1024}
    setup.apply()
    client = setup.network.client
    for number in range(1200):
        with client.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
            opened.bind(("", 20000 + number))
            opened.sendto(b"x", ("10.9.0.100", 53))


class _ByOwnAddress(threading.Thread):
    """A UDP server as they are often written: on all addresses, with answers from the first."""

    def __init__(self, host: Host) -> None:
        super().__init__(daemon=True)
        self._opened = host.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._opened.bind(("0.0.0.0", 5353))
        self.start()

    def run(self) -> None:
        with suppress(OSError):
            while True:
                data, whom = self._opened.recvfrom(2048)
                self._opened.sendto(data, whom)


def _by_own_address(setup: Setup) -> None:
    setup.services["dns"]["ports"] = [53, 5353]
    setup.services["dns"]["vip"] = ["10.9.0.100"]
    for host in setup.backends:
        _ByOwnAddress(host)
    setup.apply()


def _one_port(setup: Setup) -> None:
    setup.services["dns"]["ports"] = [53]
    setup.apply()


FAULTS = [
    Fault(
        "vip-missing-4",
        lambda setup: setup.first.remove_address("lo", "10.9.0.100/32"),
        "vip-missing",
        certain=False,
    ),
    Fault(
        "vip-missing-6",
        lambda setup: setup.first.remove_address("lo", "fd09::100/128"),
        "vip-missing",
        certain=False,
    ),
    Fault("arp-ignore", _loud, "vip-announced"),
    Fault("arp-announce", _names_the_vip, "vip-announced"),
    Fault("vip-on-eth0-4", _vip_on_eth0("10.9.0.100/32"), "vip-announced"),
    Fault("vip-on-eth0-6", _vip_on_eth0("fd09::100/128"), "vip-announced"),
    has_vip(7, 4),
    has_vip(7, 6),
    Fault("two-others", _twice, "duplicate-vip", "eth0", by_hand=_once),
    Fault("stopped", _stop, "not-listening", by_hand=_start),
    Fault("own-address-only", _elsewhere, "listens-elsewhere", by_hand=_everywhere),
    Fault(
        "drop",
        _filter("ip daddr 10.9.0.100 tcp dport 80 drop"),
        "firewall",
        by_hand=_no_filter,
    ),
    Fault(
        "reject",
        _filter("ip6 daddr fd09::100 tcp dport 80 reject"),
        "firewall",
        by_hand=_no_filter,
    ),
    Fault(
        "unplugged",
        lambda setup: setup.first.set_cable("eth0", False),
        "backend-unreachable",
        by_hand=lambda setup: setup.first.set_cable("eth0", True),
    ),
    Fault(
        "behind-a-router",
        _backend_elsewhere("10.8.0.11"),
        "off-link",
        "far-away",
        by_hand=_all_right,
    ),
    Fault(
        "nobody-there",
        _backend_elsewhere("10.9.0.66"),
        "backend-unreachable",
        "far-away",
        by_hand=_all_right,
        also=frozenset({"not-applied"}),
    ),
    Fault(
        "not-listed",
        _balancer("lb9", "10.9.0.11", alone=True),
        "not-a-load-balancer",
        "here",
        by_hand=_all_right,
    ),
    Fault(
        "second-balancer",
        _balancer("lb9", "10.9.0.99", alone=False),
        "load-balancer-unreachable",
        "lb9",
        by_hand=_all_right,
    ),
    Fault(
        "vip-gone",
        lambda setup: setup.lb.remove_address("eth0", "10.9.0.100/32"),
        "vip-not-held",
        "eth0",
        also=frozenset({"drift"}),
    ),
    Fault("cleared", lambda setup: setup.here.clear(), "not-applied", "here"),
    Fault("other-configuration", _another_document, "not-applied", "here"),
    Fault(
        "flushed",
        lambda setup: setup.lb.run(["nft", "flush", "chain", "netdev", "tula", "in.eth0"]),
        "drift",
        "here",
    ),
    Fault("no-interface", _interface, "interface-missing", "eth7", by_hand=_all_right),
    Fault("link-down", _second_interface, "interface-down", "eth1"),
    Fault("gateway", _through_the_balancer, "answers-through-balancer"),
    Fault("foreign-ingress", _foreign("ingress"), "foreign-chain", "eth0", by_hand=_allowed),
    Fault("foreign-egress", _foreign("egress"), "foreign-chain", "eth0", by_hand=_allowed),
    Fault("narrow-switch", _narrow, "path-mtu", certain=False, by_hand=_wide),
    Fault("full", _many_flows, "table-full", "here", by_hand=_all_right),
    Fault("udp-source", _by_own_address, "answers-by-own-address", by_hand=_one_port),
]
BY_ID = {fault.id: fault for fault in FAULTS}

PAIRS = [
    ("vip-missing-6", "arp-ignore"),
    ("vip-missing-6", "stopped"),
    ("conflict-4", "drop"),
    ("flushed", "gateway"),
    ("vip-on-eth0-4", "foreign-ingress"),
    ("unplugged", "vip-gone"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_found_fixed_and_gone(lab: Lab, tmp_path: Path, fault: Fault) -> None:
    check_found(l2_setup(lab, tmp_path), [fault])


@pytest.mark.parametrize("pair", PAIRS, ids="+".join)
def test_two_at_once(lab: Lab, tmp_path: Path, pair: tuple[str, str]) -> None:
    check_found(l2_setup(lab, tmp_path), [BY_ID[name] for name in pair])


def test_where_clients_packets_are_lost_is_where_the_doctor_says(lab: Lab, tmp_path: Path) -> None:
    """The backends are tested without an applied configuration too."""
    setup = l2_setup(lab, tmp_path)
    setup.here.clear()
    setup.first.remove_address("lo", "10.9.0.100/32")
    write_config(setup.path, setup.services)
    found = {(finding["id"], finding["where"]) for finding in setup.examine()}
    assert found == {("not-applied", "here"), ("vip-missing", "backend-1")}
