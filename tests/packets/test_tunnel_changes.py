"""Changes of how backends are reached, under traffic: nobody else notices.

::

    flat:    client-1, -2         lb          backend-1 … 3   (VIPs on lo, VXLAN's ends too)
                 │                 │               │
             ════╧═════════════════╧═══════════════╧═══  lan

    remote:  client-1 ── wan ── router ── far ── backend-1, -2   (as in test_tunnels.py)
                                  │
                             lan ═╧═ lb
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from support import udp_load
from support.in_process import InProcess, call_tula
from support.lab_configurations import service_of, write_config
from support.packets import address_of, read_packets
from support.queues import queue_drops
from support.tunnelled import Outside, Tunnelled, make_backend
from tula.dataplane.nft.tunnel_plan import kinds_of
from tula.kernel.nft_values import NftChange
from tula.kernel.tunnels import KernelTunnels
from tula.lab import (
    Capture,
    Host,
    Lab,
    Network,
    flat,
    flows,
    serve_tcp,
    serve_udp,
    set_offload,
    udp_ask,
)

pytestmark = pytest.mark.kernel

BOTH = pytest.mark.parametrize(
    "tunnel",
    ["vxlan", pytest.param("ipip", marks=pytest.mark.link_kinds("sit", "ipip"))],
)

PORTS = {"moving": 9000, "constant": 9105}
CHANGES = 3 if os.environ.get("TULA_VM") else 6


def start_echoes(backends: list[Host], vips: tuple[str, ...]) -> None:
    ports = ",".join(map(str, PORTS.values()))
    for backend in backends:
        program = [sys.executable, udp_load.__file__, "echo", backend.name, ports, *vips]
        echo = backend.popen(program, stdout=subprocess.PIPE)
        assert echo.stdout is not None
        assert echo.stdout.readline() == "ready\n"


def start_streams(
    client: Host, vips: tuple[str, ...], rate: int
) -> Callable[[], dict[str, dict[str, Any]]]:
    """A UDP stream to each service; calling the result ends them and tells what they counted."""
    streams = {}
    for name, port in PORTS.items():
        targets = [f"{vip},{port}" for vip in vips]
        program = [sys.executable, udp_load.__file__, "stream", str(rate), "12", *targets]
        streams[name] = client.popen(program, stdout=subprocess.PIPE)
    for stream in streams.values():
        assert stream.stdout is not None
        assert stream.stdout.readline() == "ready\n"

    def end() -> dict[str, dict[str, Any]]:
        for stream in streams.values():
            stream.send_signal(signal.SIGTERM)
        return {name: json.loads(s.communicate(timeout=60)[0]) for name, s in streams.items()}

    return end


def services(network: Network, moving: dict[str, Any], constant: dict[str, Any]) -> dict[str, Any]:
    common = {"protocol": "udp", "vip": list(network.vips)}
    return {
        name: service_of(network, **common, ports=[PORTS[name]], **how)
        for name, how in (("moving", moving), ("constant", constant))
    }


def nothing_lost(found: dict[str, dict[str, Any]], dropped: int) -> None:
    print(found, f"dropped by a busy machine: {dropped}")
    for name, stream in found.items():
        assert stream["sent"] > 100, name
        assert stream["lost"] <= dropped, (name, stream)
        assert (stream["twice"], stream["moved"]) == (0, 0), (name, stream)


def test_a_service_moves_into_a_tunnel_and_back(lab: Lab, tmp_path: Path) -> None:
    network, configuration = flat(lab), tmp_path / "tula.yaml"
    here = InProcess(network.lb)
    by_mac, in_vxlan = {"forwarding": "l2"}, {"forwarding": "l3", "tunnel": "vxlan"}
    write_config(configuration, services(network, in_vxlan, by_mac))
    here.apply(configuration)
    for backend in network.backends:
        make_backend(backend, configuration)
    start_echoes(network.backends, network.vips)
    before = queue_drops()
    end = start_streams(network.client, network.vips, 1000)
    for step in range(CHANGES):
        write_config(
            configuration, services(network, by_mac if step % 2 == 0 else in_vxlan, by_mac)
        )
        assert here.apply(configuration)
    nothing_lost(end(), queue_drops() - before)


@pytest.mark.link_kinds("sit", "ipip", "gre", "vxlan")
def test_a_tunnel_becomes_one_of_another_kind(lab: Lab, tmp_path: Path) -> None:
    made = Tunnelled(lab, tmp_path, "ipip", 4)
    network = made.network
    backends = made.web["backends"]

    def through(tunnel: str) -> bool:
        constant = {"forwarding": "l3", "tunnel": "vxlan", "backends": backends}
        made.services = services(network, {**constant, "tunnel": tunnel}, constant)
        return made.apply()

    for tunnel in ("ipip", "gre"):
        assert through(tunnel)
        made.prepare()
    start_echoes(network.backends, network.vips)
    before = queue_drops()
    end = start_streams(network.client, network.vips, 100)
    for step in range(CHANGES):
        assert through(("ipip", "gre")[step % 2])
    nothing_lost(end(), queue_drops() - before)


@pytest.mark.link_kinds("sit", "ipip", "vxlan")
def test_services_of_all_ways_stand_side_by_side(lab: Lab, tmp_path: Path) -> None:
    """The same backends by their MACs, in IPIP and in VXLAN; a service counts its own."""
    network, configuration = flat(lab, backends=2), tmp_path / "tula.yaml"
    ways = {
        80: {"forwarding": "l2"},
        81: {"forwarding": "l3", "tunnel": "ipip"},
        82: {"forwarding": "l3", "tunnel": "vxlan"},
    }
    protocols = ["tcp", "udp"]
    write_config(
        configuration,
        {
            f"s{port}": service_of(network, ports=[port], protocol=protocols, **way)
            for port, way in ways.items()
        },
        maglev={"slots": 251},
    )
    here = InProcess(network.lb)
    here.apply(configuration)
    for backend in network.backends:
        make_backend(backend, configuration)
        serve_tcp(backend, ways)
        serve_udp(backend, ways)
    with Capture(network.backends[0]) as capture:
        for port in ways:
            for vip in network.vips:
                for protocol in protocols:
                    answered = flows(network.client, vip, port, 20, protocol)
                    assert set(answered.values()) == {"backend-1", "backend-2"}
        seen = [Outside(frame) for frame in capture.frames(outgoing=False)]
    assert {frame.what for frame in seen} >= {"", "ipip", "vxlan"}
    counted = {name: service["packets"] for name, service in here.status().items()}
    assert all(packets >= 80 for packets in counted.values()), counted


def test_a_routed_vip_is_served_through_a_tunnel(lab: Lab, tmp_path: Path) -> None:
    made = Tunnelled(lab, tmp_path, "vxlan", 4)
    network = made.network
    assert network.router is not None
    made.web["vip"] = ["198.51.100.10", "2001:db8:c::10"]
    made.web["announce"] = False
    made.apply()
    made.prepare()
    made.serve()
    for vip in made.web["vip"]:
        network.router.add_route(vip, address_of(made.lb, 6 if ":" in vip else 4))
        for protocol in ("tcp", "udp"):
            answered = flows(made.client, vip, 80, 20, protocol)
            assert set(answered.values()) == {"backend-1", "backend-2"}
        assert vip not in made.lb.addresses()


@BOTH
def test_fragments_take_the_tunnel_too(lab: Lab, tmp_path: Path, tunnel: str) -> None:
    """A datagram of 5,000 bytes: all its pieces reach the backend of its flow."""
    made = Tunnelled(lab, tmp_path, tunnel, 4)
    made.apply()
    made.prepare()
    made.serve()
    set_offload(made.client, "eth0", tso=False, gso=False)
    small = flows(made.client, made.network.vip4, 80, 20, "udp")
    with Capture(made.lb) as capture:
        for port, name in small.items():
            assert udp_ask(made.client, made.network.vip4, 80, port, payload=bytes(5000)) == name
    assert all(packet.source != made.network.vip4 for packet in read_packets(capture.frames()))


def test_a_kernel_that_lacks_a_kind_says_so_before_anything_changes(
    lab: Lab, tmp_path: Path
) -> None:
    """Where it has all kinds, the same configuration is applied."""
    made = Tunnelled(lab, tmp_path, "ipip", 4)
    with made.lb.enter():
        lacking = KernelTunnels().missing(kinds_of(made.tunnel, ip_address("10.7.0.11"), 4))
        assert KernelTunnels().missing({"vxlan", "nonsense"}) == {"nonsense"}
    links = made.lb.run(["ip", "-br", "link"]).stdout
    assert "tula" not in links, "asking makes nothing"
    write_config(made.path, made.services)
    done = call_tula(made.lb, "apply", "-f", made.path, check=False)
    if lacking:
        assert done.returncode == 2
        assert "services.web.tunnel: this kernel has no ipip and sit" in done.stderr
        assert "it can make: " in done.stderr
        assert "vxlan" in done.stderr.rpartition("it can make: ")[2]
        assert made.lb.run(["ip", "-br", "link"]).stdout == links
        checked = call_tula(made.lb, "check", "-f", made.path)
        assert "warning: on this machine" in checked.stderr
        assert "this kernel has no ipip and sit" in checked.stderr
    else:
        assert done.returncode == 0, done.stderr


@BOTH
def test_many_backends(lab: Lab, tmp_path: Path, tunnel: str) -> None:
    # Emulated, a hundred devices take as long as a thousand peers of one device here.
    count = 1000 if os.environ.get("TULA_SOAK") else 300 if tunnel == "vxlan" else 100
    made = Tunnelled(lab, tmp_path, tunnel, 4)
    made.slots = 1009
    made.web["backends"] = {
        f"b{n}": {"address": f"10.7.{n // 250 + 1}.{n % 250 + 1}"} for n in range(count)
    }
    start = time.monotonic()
    assert made.apply()
    first = time.monotonic() - start
    made.web["backends"]["b7"]["address"] = "10.7.9.9"
    start = time.monotonic()
    change = made.here.plan(made.configuration())
    made.apply()
    one = time.monotonic() - start
    print(f"{count} backends over {tunnel}: from nothing {first:.1f} s, one changed {one:.1f} s")
    assert isinstance(change.path, NftChange)
    tunnels = change.path.tunnels
    if tunnel == "vxlan":
        assert (len(tunnels.add), len(tunnels.add_peers)) == (0, 1)
    else:
        assert (len(tunnels.add), len(tunnels.remove)) == (2, 2)
    assert not made.here.plan(made.path)
    start = time.monotonic()
    made.here.clear()
    print(f"clear {time.monotonic() - start:.1f} s")
    assert "tula" not in made.lb.run(["ip", "-br", "link"]).stdout
