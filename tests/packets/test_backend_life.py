"""Joins that are killed, machines that start again, balancers that are backends, and strangers.

The networks are those of test_backend_join.py.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path

import pytest

from support import killed_join
from support.in_process import InProcess
from support.joined import Joined, agent, alone, together
from support.lab_configurations import service_of, write_config
from support.machines import differences, machine
from support.packets import address_of
from support.spoofed import encapsulated, question, send_by
from support.unit_file import UnitFile
from tula.agent.unit import Unit
from tula.lab import Host, Lab, flat, flows, serve_tcp, serve_udp, wait_until
from tula.model.backend_setup import UNMANAGED_FILE

pytestmark = pytest.mark.kernel

KILLED = [("vxlan", 4), *([("l2", 4), ("gue", 4)] if os.environ.get("TULA_SOAK") else [])]
"""A program for each command: minutes in the emulated VM. VXLAN has all of L2's commands."""
TUNNELS = [(("vxlan",), 4), (("vxlan",), 6), *((("ipip", "gre", "gue"), o) for o in (4, 6))]
"""By kind, or several of one machine at once, and the version of the outer addresses."""


def state_of(host: Host) -> Path:
    return Path(host.environment()["TULA_STATE_DIR"])


def unmanaged_of(host: Host) -> Path:
    """The file that keeps networkd off its devices."""
    return state_of(host).parent / "networkd" / Path(UNMANAGED_FILE).name


def killed(host: Host, configuration: Path, number: int) -> bool:
    """Joins and is killed before a command; whether there were so many."""
    program = [sys.executable, killed_join.__file__]
    command = [*program, str(number), state_of(host), configuration, unmanaged_of(host)]
    done = host.run(command, check=False)
    assert done.returncode == -9, done.stderr
    return "all commands" not in done.stdout


@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("kind", "outer"), [alone(*kind) for kind in KILLED])
def test_a_join_that_was_killed_is_finished_or_taken_back(
    lab: Lab, tmp_path: Path, kind: str, outer: int
) -> None:
    joined = Joined(lab, tmp_path, kind, outer, backends=1)
    host, path = joined.backends[0], joined.configuration()
    before, number = machine(host), 0
    while killed(host, path, number):
        agent(host, "leave")
        assert differences(before, machine(host)) == {}, f"killed before command {number}"
        assert not unmanaged_of(host).exists()
        number += 1
    assert number > 3
    faults = {part["name"] for part in agent(host, "status", "-f", path)["parts"] if not part["ok"]}
    assert faults <= {"tula_backend"}, "all was done, and that it was is not yet on the disk"
    agent(host, "leave")
    killed(host, path, number // 2)
    agent(host, "join", "-f", path)
    assert all(part["ok"] for part in agent(host, "status")["parts"])
    assert unmanaged_of(host).exists() is (kind != "l2")
    agent(host, "leave")
    assert differences(before, machine(host)) == {}
    assert not unmanaged_of(host).exists()


@pytest.mark.parametrize(("kind", "outer"), [alone("l2", 4), alone("vxlan", 4), alone("ipip", 4)])
def test_started_again_it_joins_by_the_unit_before_it_has_addresses(
    lab: Lab, tmp_path: Path, kind: str, outer: int
) -> None:
    joined = Joined(lab, tmp_path, kind, outer, backends=1)
    joined.join()
    old = joined.backends[0]
    own = [f"{a}/{24 if ':' not in a else 64}" for a in old.addresses("eth0")]
    state = tmp_path / "state"
    shutil.copytree(state_of(old), state)
    switch, _ = old._cables["eth0"]
    old.remove_interface()
    again = lab.host("again", switch)
    unit = UnitFile.parse(Unit(state).text())
    assert unit.words("Type") == ["notify"]
    environment = {"PATH": "/usr/sbin:/usr/bin"}
    if "PYTHONPATH" in os.environ:  # where Tula is not installed
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(name)
        systemd.settimeout(120)
        again.popen(unit.command, env=environment | {"NOTIFY_SOCKET": name})
        assert systemd.recv(100) == b"READY=1", "the network may come up now"
    again.add_address("eth0", *own)
    if joined.network.router is not None:
        for gateway in ("10.7.0.1", "fd07::1"):
            again.add_route("default", gateway)
    serve_tcp(again, [80], joined.network.vips)
    lab.ready()
    for vip in joined.network.vips:
        answered = flows(joined.client, vip, 80, range(20000, 20010))
        assert set(answered.values()) == {"again"}


@pytest.mark.parametrize(("kinds", "outer"), [together(*each) for each in TUNNELS])
def test_tunnels_take_packets_of_balancers_alone_and_for_vips_alone(
    lab: Lab, tmp_path: Path, kinds: tuple[str, ...], outer: int
) -> None:
    """And whatever they are, they are gone when the machine leaves."""
    joined = Joined(lab, tmp_path, kinds[0], outer, backends=1)
    joined.offer(*kinds)
    host, network, router = joined.backends[0], joined.network, joined.network.router
    assert router is not None
    bare = machine(host)
    joined.join()
    host.add_address("lo", "10.99.0.1/32")  # of another network of the machine's
    servers = serve_udp(host, [80], [*network.vips, "10.99.0.1"])
    backend = address_of(host, outer)

    def ask(kind: str, sender: Host, interface: str, vip: str, sport: int) -> None:
        inside = question(joined.client, vip, sport)
        source = address_of(sender, outer)
        send_by(sender, router.mac(interface), encapsulated(kind, source, backend, inside))

    for kind in kinds:
        for vip in network.vips:
            before = servers.requests
            ask(kind, joined.client, "eth1", vip, 30000)  # of a stranger
            ask(kind, joined.lb, "eth0", vip, 30001)  # the same, of the balancer: it comes after
            wait_until(lambda seen=before: servers.requests > seen, what="the balancer's packet")
            assert servers.requests == before + 1
        before = servers.requests
        ask(kind, joined.lb, "eth0", "10.99.0.1", 30002)  # not for a VIP
        ask(kind, joined.lb, "eth0", network.vip4, 30003)
        wait_until(lambda seen=before: servers.requests > seen, what="the packet for the VIP")
        assert servers.requests == before + 1
    host.remove_address("lo", "10.99.0.1/32")
    agent(host, "leave")
    assert differences(bare, machine(host)) == {}


def test_a_balancer_that_is_a_backend_of_another(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab, backends=2)
    lb, other = network.lb, lab.host("lb-2", network.lan, "10.9.0.3/24", "fd09::3/64")
    lab.ready()
    own = write_config(tmp_path / "own.yaml", {"web": service_of(network)})
    foreign = {"vip": ["10.9.0.110", "fd09::110"], "ports": [80], "forwarding": "l2"}
    foreign["backends"] = {
        "first": {"address": [address_of(lb, 4), address_of(lb, 6)]},
        "second": {"address": [address_of(network.backends[0], v) for v in (4, 6)]},
    }
    theirs = write_config(tmp_path / "theirs.yaml", {"api": foreign})
    InProcess(lb).apply(own)
    before = machine(lb)
    agent(lb, "join", "-f", theirs)
    agent(network.backends[0], "join", "-f", theirs)
    InProcess(other).apply(theirs)
    for host in (lb, *network.backends):
        vips = foreign["vip"] if host is lb else [*network.vips, *foreign["vip"]]
        serve_tcp(host, [80], vips if host is not network.backends[1] else network.vips)

    def served(vips: object) -> set[str]:
        return {
            name
            for vip in vips  # type: ignore[attr-defined]
            for name in flows(network.client, vip, 80, range(20000, 20030)).values()
        }

    assert served(network.vips) == {"backend-1", "backend-2"}
    assert served(foreign["vip"]) == {"lb", "backend-1"}
    InProcess(lb).clear()
    assert served(foreign["vip"]) == {"lb", "backend-1"}
    InProcess(lb).apply(own)
    agent(lb, "leave")
    assert served(network.vips) == {"backend-1", "backend-2"}
    assert differences(_without_handles(before), _without_handles(machine(lb))) == {}


def _without_handles(found: dict[str, object]) -> dict[str, object]:
    """The balancer's table was made anew, and has counted."""
    return {name: text for name, text in found.items() if name not in ("ruleset", "neighbours")}


def test_a_backend_of_two_balancers_with_a_document_each(lab: Lab, tmp_path: Path) -> None:
    joined = Joined(lab, tmp_path, "vxlan", 4, backends=1)
    host, network = joined.backends[0], joined.network
    other = lab.host("lb-2", network.lan, "10.9.0.3/24", gateway=["10.9.0.1"])
    lab.ready()
    second = {**joined.services["web"], "vip": "10.9.0.110"}
    path = write_config(
        tmp_path / "second.yaml",
        {"api": second},
        load_balancers={"lb2": "10.9.0.3"},
        tunnels={"vxlan_id": 99},
        maglev={"slots": 251},
    )
    before = machine(host)
    agent(host, "join", "-f", joined.configuration(), "-f", path)
    joined.balancer.apply(joined.path)
    InProcess(other).apply(path)
    serve_tcp(host, [80], [*network.vips, "10.9.0.110"])
    for vip in (*network.vips, "10.9.0.110"):
        assert len(flows(joined.client, vip, 80, range(20000, 20010))) == 10
    assert agent(host, "join")["changed"] is False
    agent(host, "join", "-f", path)
    assert len(flows(joined.client, "10.9.0.110", 80, range(20100, 20110))) == 10
    agent(host, "leave")
    assert differences(before, machine(host)) == {}


@pytest.mark.link_kinds("dummy")
def test_vips_have_a_device_of_their_own_where_the_kernel_has_dummy(
    lab: Lab, tmp_path: Path
) -> None:
    joined = Joined(lab, tmp_path, "l2", 4, backends=1)
    host = joined.backends[0]
    before = machine(host)
    joined.join()
    assert set(host.addresses("tula-vips")) == set(joined.network.vips)
    serve_tcp(host, [80])
    for vip in joined.network.vips:
        assert len(flows(joined.client, vip, 80, range(20000, 20010))) == 10
    agent(host, "leave")
    assert differences(before, machine(host)) == {}
