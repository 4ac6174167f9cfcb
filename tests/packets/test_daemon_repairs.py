"""What somebody takes from a running daemon's kernel is put back, by the kernel's own events.

::

    client-1, -2            lb               backend-1 … 3
         │                  │ eth0                │   (VIPs on lo)
    ═════╧══════════════════╪═════════════════════╧═════  lan
                            │ eth1             backend-4
                       ═════╧═════════════════════╧═════  dmz   (where a test says so)

The daemon looks at the kernel by itself once an hour here: whatever is repaired was told of. How
long each took is printed.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.in_process import InProcess
from support.lab_configurations import backends_of, service_of, write_config
from support.packets import FAMILIES, vip_of
from support.running import Running
from support.snapshots import pieces, snapshot
from support.tunnelled import Tunnelled
from tula.cli.client import backend_path
from tula.lab import (
    Host,
    Lab,
    Network,
    TcpFlow,
    ask_all,
    flat,
    flows,
    serve_tcp,
    serve_udp,
    tcp_flows,
    wait_until,
)
from tula.lab.topologies import prepare_backend
from tula.model.problem import ProblemsError

pytestmark = pytest.mark.kernel

# A link that goes down is noticed long before that many failures, even on a busy machine.
QUICK = {"type": "tcp", "interval": "200ms", "timeout": "150ms", "rise": 2, "fall": 5}
SELDOM = ("--interval", "1h")
TABLE = "netdev tula"
UDP_PORTS, TCP_PORTS = range(31000, 31020), range(32000, 32020)
VIPS = ("10.9.0.100/32", "fd09::100/128")


def run(*words: str) -> Callable[[Host], None]:
    def act(lb: Host) -> None:
        lb.run(list(words))

    return act


def nft(text: str) -> Callable[[Host], None]:
    def act(lb: Host) -> None:
        lb.run(["nft", "-f", "-"], input=text.replace("; ", "\n"))

    return act


def sysctl(name: str, value: int) -> Callable[[Host], None]:
    return lambda lb: lb.write_sysctl(f"net/ipv4/conf/eth0/{name}", value)


TAKEN = {
    "the ruleset is flushed": run("nft", "flush", "ruleset"),
    "the table is deleted": run("nft", "delete", "table", "netdev", "tula"),
    "a slot is gone": nft(f"delete element {TABLE} slots_1_4093 {{ 7 }}"),
    "a VIP is not dispatched": nft(
        f"delete element {TABLE} service_port4_1024 {{ 10.9.0.100 . tcp . 80 }}"
    ),
    "rules of a service are gone": nft(f"flush chain {TABLE} service6.web"),
    "the base chain is gone": nft(f"delete chain {TABLE} in.eth0"),
    "the way of probes is gone": nft(f"delete chain {TABLE} probe"),
    "a rule is added": nft(f"insert rule {TABLE} service4.web accept"),
    "a foreign set has the name of a map": nft(
        f"add set {TABLE} service_any4 {{ type ipv4_addr; elements = {{ 1.2.3.4 }}; }}"
    ),
    "an element drops a service's packets": nft(
        f"add element {TABLE} service_port4_1024 {{ 10.9.0.100 . tcp . 81 : drop }}"
    ),
    "the base chain drops by its policy": nft(
        f'add chain {TABLE} in.eth0 {{ type filter hook ingress device "eth0" priority -500; '
        "policy drop; }"
    ),
    "the IPv4 VIP is removed": run("ip", "address", "del", "10.9.0.100/32", "dev", "eth0"),
    "the IPv6 VIP is removed": run("ip", "address", "del", "fd09::100/128", "dev", "eth0"),
    "the policy rule of IPv4 probes is deleted": run("ip", "-4", "rule", "del", "pref", "84"),
    "the policy rule of IPv6 probes is deleted": run("ip", "-6", "rule", "del", "pref", "84"),
    "the route of IPv4 probes is flushed": run("ip", "-4", "route", "flush", "table", "21621"),
    "the route of IPv6 probes is flushed": run("ip", "-6", "route", "flush", "table", "21621"),
    "answers from the VIP are forbidden": sysctl("accept_local", 0),
}

NAMED = {
    "the table is deleted": "the kernel has no table of Tula: nothing is forwarded",
    "a slot is gone": "map slots_1_4093 differs (elements: 1 missing)",
    "the base chain is gone": "chain in.eth0 is missing",
    "the IPv4 VIP is removed": "VIP 10.9.0.100 is missing on eth0",
}
"""What the event says that was found."""


def ready(network: Network, path: Path) -> Path:
    for backend in network.backends:
        serve_tcp(backend, [80])
        serve_udp(backend, [80])
    # What the probes' answers need beside accept_local: nothing that differs between machines.
    for scope in ("all", "eth0"):
        network.lb.write_sysctl(f"net/ipv4/conf/{scope}/rp_filter", 0)
    web = service_of(network, protocol=["tcp", "udp"], health=QUICK)
    return write_config(path / "tula.yaml", {"web": web})


class Watched:
    """A daemon with flows that must live, and what it told of its repairs."""

    def __init__(self, daemon: Running, network: Network, configuration: Path) -> None:
        self.daemon, self.network, self.configuration = daemon, network, configuration
        self.lb = network.lb
        self._here = InProcess(network.lb)
        self.tcp: dict[int, list[TcpFlow]] = {}
        self.udp: dict[int, dict[int, str]] = {}

    def open_flows(self) -> None:
        """Connections and UDP flows of both IP versions."""
        for family in FAMILIES:
            vip = vip_of(self.network, family)
            self.tcp[family] = tcp_flows(self.network.client, vip, 80, TCP_PORTS)
            self.udp[family] = self._ask(family)
        self.answers = {family: ask_all(opened) for family, opened in self.tcp.items()}

    def _ask(self, family: int) -> dict[int, str]:
        return flows(self.network.client, vip_of(self.network, family), 80, UDP_PORTS, "udp")

    def same_flows(self) -> None:
        """All of them are answered, and by whom they were."""
        for family, opened in self.tcp.items():
            assert ask_all(opened) == self.answers[family]
        for family, before in self.udp.items():
            assert self._ask(family) == before

    def events(self, kind: str, after: int = 0) -> list[dict[str, Any]]:
        return [e for e in self.daemon.events() if e["kind"] == kind and e["number"] > after]

    def last(self) -> int:
        return max(event["number"] for event in self.daemon.events())

    def nothing_to_do(self) -> bool:
        """What ``tula plan`` says, where the machine has all that the configuration names."""
        try:
            return not self._here.plan(self.configuration)
        except ProblemsError:
            return False

    def repaired_after(
        self, act: Callable[[], object], settled: Callable[[], bool] = lambda: True
    ) -> float:
        """Seconds until the daemon told that it had repaired what was done."""
        before, start = self.last(), time.time()
        act()
        told = wait_until(lambda: self.events("kernel-repaired", before), 60, "kernel-repaired")
        wait_until(settled, 60, "what it was")
        # Of several, the last: what came later was needed as well.
        told = self.events("kernel-repaired", before)
        return float(told[-1]["time"]) - start


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    with Lab() as lab:
        network = flat(lab)
        configuration = ready(network, tmp_path_factory.mktemp("repairs"))
        with Running(network.lb, configuration, *SELDOM) as daemon:
            daemon.wait_for(backend_1="up", backend_2="up", backend_3="up")
            made = Watched(daemon, network, configuration)
            made.open_flows()
            yield made


def whole(host: Host) -> dict[str, object]:
    """The kernel's state in any order."""
    found: dict[str, object] = {
        name: sorted(text.splitlines()) for name, text in snapshot(host).items() if name != "links"
    }
    made = [f"net/ipv4/conf/eth0/{name}" for name in ("rp_filter", "accept_local")]
    settings = {name: host.read_sysctl(name) for name in made}
    return {**found, "ruleset": pieces(host), "sysctls": settings}


@pytest.mark.parametrize("act", TAKEN.values(), ids=TAKEN.keys())
def test_what_is_taken_is_put_back(
    watched: Watched, act: Callable[[Host], None], request: pytest.FixtureRequest
) -> None:
    wait_until(watched.nothing_to_do, 60, "nothing to do")
    before, last = whole(watched.lb), watched.last()
    took = watched.repaired_after(
        lambda: act(watched.lb), settled=lambda: whole(watched.lb) == before
    )
    named = NAMED.get(request.node.callspec.id, "")
    assert any(named in told["evidence"] for told in watched.events("kernel-repaired", last))
    print(f"{request.node.callspec.id}: repaired after {took * 1000:.0f} ms")
    watched.daemon.wait_for(backend_1="up", backend_2="up", backend_3="up")
    wait_until(watched.nothing_to_do, 60, "nothing to do")
    watched.same_flows()
    assert not watched.events("cycle-failed"), watched.daemon.log


def test_an_idle_daemon_does_nothing_and_says_nothing(watched: Watched) -> None:
    """Its own changes and its probes do not wake it, and what others do elsewhere only once."""
    daemon = watched.daemon
    daemon.wait_until_at_rest()
    count, log = daemon.cycles(), daemon.log
    end = time.monotonic() + 4.0
    while time.monotonic() < end:
        watched.same_flows()  # traffic is no reason for anything either
    assert daemon.cycles() == count
    assert daemon.log == log
    watched.lb.run(["nft", "add table ip elsewhere"])
    wait_until(lambda: daemon.cycles() > count, 60, "a cycle after somebody's change")
    daemon.wait_until_at_rest()
    assert daemon.cycles() == count + 1
    watched.lb.run(["nft", "delete table ip elsewhere"])
    assert daemon.log == log


def test_a_link_that_was_down(watched: Watched) -> None:
    """IPv6 loses its addresses, the VIP too; they come back a while after the link."""
    lb = watched.lb

    def down() -> None:
        lb.set_link("eth0", up=False)

    took = watched.repaired_after(down, settled=lambda: "fd09::2" not in lb.addresses("eth0"))
    print(f"link down: noticed after {took * 1000:.0f} ms")
    watched.daemon.wait_for(backend_1="down", backend_2="down", backend_3="down")

    def up() -> None:
        lb.set_link("eth0", up=True)
        lb.add_address("eth0", "fd09::2/64")

    took = watched.repaired_after(up, settled=lambda: held(lb) == set(VIPS))
    print(f"link up: repaired after {took * 1000:.0f} ms")
    watched.daemon.wait_for(backend_1="up", backend_2="up", backend_3="up")
    wait_until(watched.nothing_to_do, 60)
    watched.same_flows()


def test_a_cable_that_is_out_takes_nobody_down(watched: Watched) -> None:
    lb, told = watched.lb, watched.last()

    def paused() -> bool:
        (service,) = watched.daemon.status()["services"]
        return all("eth0 has no carrier" in b.get("warning", "") for b in service["backends"])

    lb.set_cable("eth0", False)
    wait_until(paused, 60, "checks that wait for a carrier")
    time.sleep(2.0)  # for longer than a backend that is asked takes to be down
    lb.set_cable("eth0", True)
    wait_until(lambda: not paused(), 60, "checks that go on")
    watched.daemon.wait_for(backend_1="up", backend_2="up", backend_3="up")
    watched.same_flows()
    assert not watched.events("backend-down", told)


def test_a_card_that_is_taken_out_and_given_back(watched: Watched) -> None:
    """Another index, other addresses for a moment, and nothing of nftables survives on it."""
    lb, network = watched.lb, watched.network
    # With another MAC the backends would send to the old one until their entries are stale.
    old, mac = lb.index("eth0"), lb.mac()
    before = watched.last()
    lb.remove_interface("eth0")
    wait_until(lambda: watched.events("kernel-repaired", before), 60, "kernel-repaired")
    problems = watched.daemon.status()["daemon"]["problems"]
    assert any("no interface 'eth0' here" in problem for problem in problems)

    def back() -> None:
        network.lab.connect(lb, network.lan, mac=mac)
        assert lb.index("eth0") != old
        lb.add_address("eth0", "10.9.0.2/24", "fd09::2/64")

    took = watched.repaired_after(back, settled=lambda: held(lb) == set(VIPS))
    print(f"the card is back: repaired after {took * 1000:.0f} ms")
    watched.daemon.wait_for(backend_1="up", backend_2="up", backend_3="up")
    wait_until(watched.nothing_to_do, 60)
    watched.same_flows()


def test_one_of_two_cards_is_gone_and_the_other_goes_on(lab: Lab, tmp_path: Path) -> None:
    """Backends behind the other card are checked, drained and leave as always, flows go on."""
    network = flat(lab, backends=2)
    lb = network.lb
    dmz = lab.switch("dmz")
    lab.connect(lb, dmz, "10.7.0.2/24", "fd07::2/64", ifname="eth1")
    far = [
        lab.host(f"far-{n}", dmz, f"10.7.0.1{n}/24", f"fd07::1{n}/64", gateway="10.7.0.2")
        for n in (1, 2)
    ]
    for host in far:
        prepare_backend(host, network.vips)
    # The answers from the dmz: by this machine to the clients, as a router would.
    lb.forwarding(True)
    for host in (*network.clients, *network.backends):
        host.add_route("10.7.0.0/24", "10.9.0.2")
    for host in far:
        host.add_route("default", "fd07::2")
    lab.ready()
    for host in (*network.backends, *far):
        serve_tcp(host, [80])
        serve_udp(host, [80])
    backends = backends_of(*network.backends, *far)
    web = service_of(network, protocol=["tcp", "udp"], health=QUICK, backends=backends)
    configuration = write_config(tmp_path / "tula.yaml", {"web": web}, ("eth0", "eth1"))
    ups = {"backend_1": "up", "backend_2": "up"}
    with Running(lb, configuration, *SELDOM) as daemon:
        watched = Watched(daemon, network, configuration)
        daemon.wait_for(**ups, far_1="up", far_2="up")
        near = {"backend-1", "backend-2"}
        opened = {f: tcp_flows(network.client, vip_of(network, f), 80, TCP_PORTS) for f in FAMILIES}
        before = {f: ask_all(each) for f, each in opened.items()}
        staying = {f: [o for o in opened[f] if before[f][o.source_port] in near] for f in FAMILIES}

        def same() -> None:
            for family, each in staying.items():
                assert each
                answered = ask_all(each)
                assert answered == {p: before[family][p] for p in answered}

        def answering() -> set[str]:
            return set(flows(network.client, network.vip4, 80, 60, "tcp").values())

        mac = lb.mac("eth1")
        took = watched.repaired_after(lambda: lb.remove_interface("eth1"))
        print(f"one of two cards is gone: its backends out after {took * 1000:.0f} ms")
        same()
        assert answering() == near
        problems = daemon.status()["daemon"]["problems"]
        assert any("no interface 'eth1' here" in problem for problem in problems)
        network.backends[1].remove_address("lo", *VIPS)
        daemon.wait_for(backend_1="up", backend_2="down")
        wait_until(lambda: answering() == {"backend-1"}, 60, "one of them is left")
        network.backends[1].add_address("lo", *VIPS)
        daemon.wait_for(**ups)
        daemon.client().send("POST", backend_path("web", "backend-2", "drain"))
        assert answering() == {"backend-1"}
        daemon.client().send("POST", backend_path("web", "backend-2", "undrain"))
        assert answering() == near
        events = watched.last()
        # The same card: of another's MAC IPv6 would hear only when it asks, half a minute later.
        lab.connect(lb, dmz, ifname="eth1", mac=mac)
        lb.add_address("eth1", "10.7.0.2/24", "fd07::2/64")
        wait_until(lambda: watched.events("kernel-repaired", events), 60, "kernel-repaired")
        daemon.wait_for(**ups, far_1="up", far_2="up")
        wait_until(watched.nothing_to_do, 60, "nothing to do")
        assert answering() == {"backend-1", "backend-2", "far-1", "far-2"}
        assert not daemon.status()["daemon"]["problems"]
        assert not watched.events("cycle-failed"), daemon.log


def test_a_tunnel_that_is_deleted(lab: Lab, tmp_path: Path) -> None:
    tunnel = "vxlan"
    made = Tunnelled(lab, tmp_path, tunnel, 4)
    network, lb = made.network, made.lb
    made.web["health"] = {**QUICK, "interval": "1s", "timeout": "900ms", "fall": 5}
    made.web["ports"] = [80]
    configuration = made.configuration()
    made.prepare()
    made.serve()
    with Running(lb, configuration, *SELDOM) as daemon:
        watched = Watched(daemon, network, configuration)
        daemon.wait_for(within=60.0, backend_1="up", backend_2="up")
        opened = {f: tcp_flows(network.client, vip_of(network, f), 80, TCP_PORTS) for f in FAMILIES}
        before = {f: ask_all(each) for f, each in opened.items()}
        names = [name for name in lb.interfaces() if name.startswith("tula")]
        assert names
        for name in names:
            took = watched.repaired_after(lambda name=name: lb.remove_interface(name))
            print(f"{tunnel}: {name} deleted: repaired after {took * 1000:.0f} ms")
            assert name in lb.interfaces()
        took = watched.repaired_after(lambda: lb.set_link(names[0], up=False))
        print(f"{tunnel}: {names[0]} down: repaired after {took * 1000:.0f} ms")
        wait_until(watched.nothing_to_do, 60, "nothing to do")
        assert {f: ask_all(each) for f, each in opened.items()} == before
        assert not watched.events("backend-down"), daemon.log


def held(host: Host) -> set[str]:
    """The VIPs that the host holds now."""
    text = host.run(["ip", "-o", "address", "show", "dev", "eth0"]).stdout
    return {vip for vip in VIPS if f" {vip} " in text or f" {vip.partition('/')[0]} " in text}
