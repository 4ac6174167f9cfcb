"""Direct Server Return through tunnels: each kind, both families inside and outside.

::

    client-1 ── wan ── router ── far ── backend-1, -2   (VIPs on lo, tunnels' ends)
                         │
                    lan ═╧═ lb

    request:  client ─▶ router ─▶ lb ═ tunnel ═▶ router ═▶ backend
    answer:   backend ─▶ router ─▶ client

Backends are prepared by the commands that ``tula backend instructions`` prints.
"""

from __future__ import annotations

import socket
from contextlib import ExitStack
from ipaddress import ip_address

import pytest

from support.packets import FAMILIES, PROTOCOLS, address_of, read_packets, udp_socket, vip_of
from support.tunnelled import Outside, Tunnelled
from tula.kernel.nft_values import NftChange
from tula.lab import Capture, flows, udp_ask, wait_until
from tula.model.config import Protocol
from tula.model.flow import Flow

pytestmark = pytest.mark.kernel

IPV6_TCLASS = 67


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("family", FAMILIES)
def test_requests_are_answered_straight_from_the_backend(
    tunnelled: Tunnelled, family: int, protocol: str
) -> None:
    network, lb = tunnelled.network, tunnelled.lb
    vip, tunnel = vip_of(network, family), tunnelled.web["tunnel"]
    ports = range(20000, 20016)
    with Capture(lb) as at_lb, Capture(network.backends[0]) as at_backend:
        answered = flows(tunnelled.client, vip, 80, ports, protocol)
        asked = [f for f in map(Outside, at_backend.frames(outgoing=False)) if f.inside]
    assert len(answered) == len(ports)
    assert set(answered.values()) == {"backend-1", "backend-2"}
    # The balancer had no answers: whatever it sent is a tunnel's packet, and none comes from a VIP.
    sent = [frame for frame in map(Outside, at_lb.frames(outgoing=True)) if frame.inside]
    assert {frame.what for frame in sent} == {tunnel}
    assert all(packet.source != vip for packet in read_packets(at_lb.frames()))
    # Outer headers, as the backend saw them, one router later.
    outer = {(f.what, f.ip.src, f.ip.dst, f.ttl, f.traffic_class & 0xFC) for f in asked}
    backend = tunnelled.web["backends"]["backend-1"]["address"]
    own = address_of(lb, 6 if ":" in backend else 4)
    assert outer == {(tunnel, own, backend, 63, 0)}
    mine = {port for port, name in answered.items() if name == "backend-1"}
    client = address_of(tunnelled.client, family)
    assert {frame.flow for frame in asked} == {(client, vip, port) for port in mine}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_traffic_class_is_copied_and_congestion_too(tunnelled: Tunnelled, family: int) -> None:
    vip = vip_of(tunnelled.network, family)
    value = 0x28 << 2 | 0x2  # a DSCP, and ECT(0): RFC 6040 has it copied
    with Capture(tunnelled.lb) as capture, udp_socket(tunnelled.client, family, 20100) as asking:
        if family == 4:
            asking.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, value)
        else:
            asking.setsockopt(socket.IPPROTO_IPV6, IPV6_TCLASS, value)
        asking.sendto(b"?", (vip, 80))
        assert asking.recv(100)
        sent = [f for f in map(Outside, capture.frames(outgoing=True)) if f.inside]
    assert [frame.traffic_class for frame in sent] == [value]


def test_flows_have_outer_ports_of_their_own_where_there_are_any(tunnelled: Tunnelled) -> None:
    ports = range(20200, 20240)
    # A veth hands on the hash that the sending socket drew: one socket a flow, asked twice.
    with Capture(tunnelled.lb) as capture, ExitStack() as stack:
        for port in ports:
            asking = stack.enter_context(udp_socket(tunnelled.client, 4, port))
            for _ in range(2):
                asking.sendto(b"?", (tunnelled.network.vip4, 80))
                assert asking.recv(100)
        sent = [f for f in map(Outside, capture.frames(outgoing=True)) if f.inside]
    assert len(sent) == 2 * len(ports)
    if tunnelled.web["tunnel"] not in ("gue", "vxlan"):
        assert {frame.port for frame in sent} == {0}, "no UDP outside"
        return
    by_flow = {(frame.flow, frame.port) for frame in sent}
    assert len(by_flow) == len(ports), "one port a flow, and always the same"
    assert len({port for _, port in by_flow}) > 30


def test_status_trace_and_plan_name_the_tunnel(tunnelled: Tunnelled) -> None:
    lb, tunnel = tunnelled.lb, tunnelled.web["tunnel"]
    backend = tunnelled.web["backends"]["backend-1"]["address"]
    own = address_of(lb, 6 if ":" in backend else 4)
    shown = tunnelled.here.status()["web"]["backends"][0]["tunnel"]
    assert shown.items() >= {"kind": tunnel, "local": own, "remote": backend}.items()
    vip, port = tunnelled.network.vip4, 20300
    client = address_of(tunnelled.client, 4)
    flow = Flow(ip_address(client), port, ip_address(vip), 80, Protocol.UDP)
    told = tunnelled.here.trace(flow)
    assert told.backend == udp_ask(tunnelled.client, vip, 80, port)
    assert f"in a tunnel ({tunnel}) to " in told.reason
    assert "holds this flow" in tunnelled.here.trace(flow).reason
    assert not tunnelled.here.plan(tunnelled.path)


def test_a_device_that_was_deleted_or_changed_is_shown_and_repaired(tunnelled: Tunnelled) -> None:
    lb, vip = tunnelled.lb, tunnelled.network.vip4
    with lb.netlink() as netlink:
        devices = [link for link in netlink.get_links() if link.get("ifname").startswith("tula")]
    for spoil in (
        lambda netlink, index: netlink.link("del", index=index),
        lambda netlink, index: netlink.link("set", index=index, mtu=1300),
        lambda netlink, index: netlink.link("set", index=index, state="down"),
    ):
        with lb.netlink() as netlink:
            for device in devices:
                spoil(netlink, device["index"])
        change = tunnelled.here.plan(tunnelled.path)
        assert isinstance(change.path, NftChange)
        added = {device.name for device in change.path.tunnels.add}
        assert added == {d.get("ifname") for d in devices}
        assert not change.path.transaction, "rules stand still"
        assert tunnelled.apply()
        assert not tunnelled.apply()
        answered = flows(tunnelled.client, vip, 80, range(20400, 20420), "udp")
        assert len(answered) == 20


def test_it_is_gone_with_clear_and_others_are_not(tunnelled: Tunnelled) -> None:
    lb = tunnelled.lb
    with lb.netlink() as netlink:
        netlink.link("add", ifname="foreign", kind="vxlan", vxlan_id=7, vxlan_port=9999)
    tunnelled.here.clear()

    def names() -> set[str]:
        with lb.netlink() as netlink:
            return {str(link.get("ifname")) for link in netlink.get_links()}

    left = {name for name in names() if not name.endswith("0")} - {"lo"}
    assert left == {"foreign"}
    with lb.netlink() as netlink:
        netlink.link("del", index=lb.index("foreign"))
    tunnelled.apply()
    wait_until(lambda: udp_ask(tunnelled.client, tunnelled.network.vip4, 80), what="an answer")
