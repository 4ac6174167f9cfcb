"""The doctor finds nothing where nothing is wrong, and leaves nothing behind.

Every set-up is that of test_doctor_near.py or test_doctor_far.py, with something of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.doctor import Setup, balancers, l2_setup, l3_setup
from support.in_process import call_tula
from support.lab_configurations import service_of
from support.running import Running
from support.snapshots import sysctls
from tula.lab import Lab, flat, routed, serve_tcp, wait_until

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]


def on_one_switch(lab: Lab, directory: Path) -> Setup:
    network = flat(lab, clients=1)
    setup = Setup(network, directory / "tula.yaml", {"web": service_of(network)})
    setup.serve()
    setup.apply()
    return setup


def without_ipv6(lab: Lab, directory: Path) -> Setup:
    network = flat(lab, clients=1, ipv6=False)
    setup = Setup(network, directory / "tula.yaml", {"web": service_of(network)})
    setup.serve()
    setup.apply()
    return setup


def over_ipv6(lab: Lab, directory: Path) -> Setup:
    return l3_setup(lab, directory, outer=6)


def routed_vip(lab: Lab, directory: Path) -> Setup:
    """The router sends the VIPs to the balancer, which has them not."""
    vips = ("10.66.0.1", "fd66::1")
    network = routed(lab, clients=1, backends=2, vips=vips)
    assert network.router is not None
    network.router.add_route("10.66.0.1/32", via="10.9.0.2")
    network.router.add_route("fd66::1/128", via="fd09::2")
    web = service_of(network, announce=False)
    setup = Setup(network, directory / "tula.yaml", {"web": web})
    setup.serve()
    setup.apply()
    return setup


def standby(lab: Lab, directory: Path) -> Setup:
    """Another balancer has the VIPs now."""
    network = routed(lab, clients=1, backends=2)
    active = lab.host("lb-2", network.lan, "10.9.0.3/24", "fd09::3/64")
    active.add_address("eth0", "10.9.0.100/32", "fd09::100/128")
    web = service_of(network, announce=False)
    known = {**balancers(network), "lb-2": "10.9.0.3"}
    setup = Setup(network, directory / "tula.yaml", {"web": web}, load_balancers=known)
    setup.serve()
    setup.apply()
    return setup


def many_services(lab: Lab, directory: Path) -> Setup:
    """Ranges in which few ports are served, any port, the same VIP for several services."""
    network = routed(lab, clients=1, backends=2)
    services = {
        "web": service_of(network, ports=[80, "8000-8010"]),
        "range": service_of(network, ports=["9000-9100"]),
        "dns": service_of(network, ports=[53], protocol=["tcp", "udp"]),
        "rest": service_of(network, ports="any", protocol=["udp"]),
    }
    setup = Setup(network, directory / "tula.yaml", services)
    setup.serve(tcp=(80, 53))
    setup.apply()
    return setup


def no_connections(lab: Lab, directory: Path) -> Setup:
    setup = l2_setup(lab, directory)
    setup.top["connections"] = {"enabled": False}
    setup.apply()
    return setup


def drained(lab: Lab, directory: Path) -> Setup:
    setup = l2_setup(lab, directory)
    call_tula(setup.lb, "drain", "web/backend-1")
    return setup


def vip_on_the_other_subnet(lab: Lab, directory: Path) -> Setup:
    """Clients come in by one interface, backends are on another."""
    network = routed(lab, clients=1, backends=2)
    outside = lab.switch("outside")
    network.lb.add_interface(outside, "10.20.0.2/24", ifname="eth1", mac="02:00:00:00:20:02")
    client = lab.host("client-20", outside, "10.20.0.50/24")
    for backend in network.backends:
        backend.add_address("lo", "10.20.0.100/32")
    lab.ready()
    web = service_of(network, vip=["10.20.0.100"])
    setup = Setup(network, directory / "tula.yaml", {"web": web})
    setup.interfaces = ("eth0", "eth1")
    setup.serve()
    setup.apply()
    assert client.name == "client-20"
    return setup


def guarded(lab: Lab, directory: Path) -> Setup:
    """A firewall on the balancer that drops what it does not know, before and after Tula."""
    setup = l2_setup(lab, directory)
    early = "type filter hook ingress device eth0 priority -600; tcp dport 23 drop;"
    setup.nft(setup.lb, f"table netdev guard {{\nchain early {{ {early} }}\n}}\n")
    rules = "type filter hook input priority 0; policy drop; ct state established accept;"
    accepted = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept;"
    setup.nft(setup.lb, f"table inet guard {{\nchain in {{ {rules} {accepted} }}\n}}\n")
    return setup


def silent_to_echoes(lab: Lab, directory: Path) -> Setup:
    """Backends that drop whatever is no request of their services."""
    setup = l2_setup(lab, directory)
    allowed = "tcp dport 80 accept; udp dport 53 accept; ct state established accept;"
    neighbours = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert } accept;"
    chain = f"type filter hook input priority 0; policy drop; {allowed} {neighbours}"
    for host in setup.backends:
        setup.nft(host, f"table inet guard {{\nchain in {{ {chain} }}\n}}\n")
    return setup


SETUPS: list[Callable[[Lab, Path], Setup]] = [
    l2_setup, on_one_switch, without_ipv6, l3_setup, over_ipv6, routed_vip, standby, many_services,
    no_connections, drained, vip_on_the_other_subnet, guarded, silent_to_echoes,
]  # fmt: skip


@pytest.mark.parametrize("make", SETUPS, ids=lambda make: make.__name__)
def test_nothing_is_found(lab: Lab, tmp_path: Path, make: Callable[[Lab, Path], Setup]) -> None:
    assert make(lab, tmp_path).examine() == []


def test_with_a_daemon_that_checks(lab: Lab, tmp_path: Path) -> None:
    """One backend is down by its checks, and served by no one: that is no drift."""
    setup = l2_setup(lab, tmp_path)
    check: dict[str, Any] = {"type": "tcp", "interval": "200ms", "timeout": "200ms", "rise": 1}
    del setup.services["dns"]
    setup.services["web"]["health"] = {**check, "fall": 1}
    setup.apply()
    with Running(setup.lb, setup.path) as daemon:
        daemon.wait_for(backend_1="up", backend_2="up")
        assert setup.examine() == []
        setup.servers["backend-1", 80].close()
        daemon.wait_for(backend_1="down")
        assert {f["id"] for f in setup.examine()} == {"not-listening"}
        setup.servers["backend-1", 80] = serve_tcp(setup.first, [80])
        daemon.wait_for(backend_1="up")


def test_no_setting_changes_and_no_connection_stays(lab: Lab, tmp_path: Path) -> None:
    setup = l2_setup(lab, tmp_path)
    before = [sysctls(host) for host in (setup.lb, setup.first)]
    assert setup.examine() == []
    changed = [
        _changes(a, sysctls(h)) for a, h in zip(before, (setup.lb, setup.first), strict=True)
    ]
    assert changed == [set(), set()]
    # The half-open ones are ended by a RST of its own.
    command = ["ss", "-Htan", "state", "syn-recv"]
    wait_until(lambda: not setup.first.run(command).stdout, what="no connection")


def _changes(before: dict[str, str], after: dict[str, str]) -> set[str]:
    return {name for name in before if before[name] != after.get(name)}
