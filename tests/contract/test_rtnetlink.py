"""The lean reading of links, addresses and routes tells what pyroute2's full one tells.

::

        lb  eth0 10.0.0.2/16, 2001:db8::2/64, and a tunnel device of each kind
              │
        ══════╧══════  switch
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from tula.dataplane.nft.tunnel_devices import TunnelDevice, Tunnels
from tula.dataplane.nft.tunnel_diff import TunnelChange
from tula.kernel.rtnetlink import RtReader
from tula.kernel.tunnel_links import is_ours, read_device
from tula.kernel.tunnels import KernelTunnels
from tula.lab import Host, Lab

pytestmark = pytest.mark.kernel

LOCAL4, REMOTE4 = ip_address("10.0.0.2"), ip_address("192.0.2.7")
LOCAL6, REMOTE6 = ip_address("2001:db8::2"), ip_address("2001:db8:7::7")
VXLAN = [
    TunnelDevice("vxlan", LOCAL4, None, 1500, fragments=True, vni=21621, port=4789),
    TunnelDevice("vxlan", LOCAL6, None, 1500, fragments=True, vni=21621, port=4789),
    TunnelDevice("vxlan", ip_address(0), None, 1400, fragments=True, vni=1, port=4790),
]
OTHERS = [
    TunnelDevice("sit", LOCAL4, REMOTE4, 1480),
    TunnelDevice("ipip", LOCAL4, REMOTE4, 1500, ttl=0, fragments=True),
    TunnelDevice("gre", LOCAL4, REMOTE4, 1500, fragments=True),
    TunnelDevice("ip6tnl", LOCAL6, REMOTE6, 1460),
    TunnelDevice("ip6gre", LOCAL6, REMOTE6, 1456),
    TunnelDevice("sit", LOCAL4, ip_address("192.0.2.8"), 1468, gue_port=5555),
    TunnelDevice("ip6tnl", LOCAL6, ip_address("2001:db8:7::8"), 1448, gue_port=5555),
]


@pytest.fixture
def lb() -> Iterator[Host]:
    with Lab() as lab:
        host = lab.host("lb", lab.switch(), "10.0.0.2/16", "2001:db8::2/64")
        with host.enter():
            yield host


def make(devices: list[TunnelDevice]) -> None:
    numbered = [device.at(1000 + at) for at, device in enumerate(devices)]
    KernelTunnels().prepare(TunnelChange(add=tuple(numbered)), Tunnels())


def links_agree() -> dict[str, TunnelDevice | None]:
    """Tula's devices, read in both ways."""
    with IPRoute() as netlink, RtReader() as reader:
        full: dict[str, Any] = {e.get_attr("IFLA_IFNAME"): e for e in netlink.get_links()}
        lean = {entry.name: entry for entry in reader.links()}
    assert set(lean) == set(full)
    for name, entry in lean.items():
        other = full[name]
        assert (entry.index, entry.flags) == (other["index"], other["flags"])
        assert (entry["index"], entry["flags"]) == (other["index"], other["flags"])
        assert entry.mtu == other.get_attr("IFLA_MTU")
        mac = ":".join(f"{byte:02x}" for byte in entry.mac)
        if len(entry.mac) == 6:
            assert mac == other.get_attr("IFLA_ADDRESS")
        assert is_ours(entry) == is_ours(other)
        if is_ours(entry):
            assert read_device(entry) == read_device(other)
    return {name: read_device(entry) for name, entry in lean.items() if is_ours(entry)}


@pytest.mark.parametrize(
    "devices",
    [
        [],
        pytest.param(VXLAN, marks=pytest.mark.link_kinds("vxlan")),
        pytest.param(
            OTHERS, marks=pytest.mark.link_kinds("sit", "ipip", "gre", "ip6tnl", "ip6gre", "fou")
        ),
    ],
    ids=["none", "vxlan", "others"],
)
@pytest.mark.usefixtures("lb")
def test_links(devices: list[TunnelDevice]) -> None:
    make(devices)
    assert links_agree() == {device.name: device for device in devices}


@pytest.mark.link_kinds("vxlan")
def test_a_device_that_someone_set_otherwise(lb: Host) -> None:
    make(VXLAN)
    first, second, third = (device.name for device in VXLAN)
    lb.run(["ip", "link", "set", first, "down"])
    lb.run(["ip", "link", "set", second, "mtu", "1300"])
    lb.run(["ip", "link", "set", third, "type", "vxlan", "ttl", "7"])
    found = links_agree()
    assert set(found) == {first, second, third}
    assert found[first] is None
    assert found[second] not in VXLAN


def test_addresses(lb: Host) -> None:
    lb.run(["ip", "address", "add", "10.9.9.1", "peer", "10.9.9.2/32", "dev", "eth0"])
    # What `proto` gives needs no newer ip than Debian 12's: pyroute2 says it.
    with IPRoute() as netlink:
        index = netlink.link_lookup(ifname="eth0")[0]
        netlink.addr("add", index=index, address="10.0.0.100", prefixlen=32, proto=0x54)
        full = [
            (
                entry["index"],
                entry.get_attr("IFA_LOCAL") or entry.get_attr("IFA_ADDRESS"),
                entry["prefixlen"],
                entry.get_attr("IFA_PROTO") or 0,
            )
            for entry in netlink.get_addr()
        ]
    with RtReader() as reader:
        lean = [(e.index, e.text, e.length, e.owner) for e in reader.addresses()]
    assert lean == full
    assert (index, "10.0.0.100", 32, 0x54) in lean
    assert (index, "10.9.9.1", 32, 0) in lean


def test_routes(lb: Host) -> None:
    lb.run(["ip", "route", "add", "192.0.2.0/24", "via", "10.0.0.9"])
    lb.run(["ip", "route", "add", "198.51.100.0/24", "via", "inet6", "fe80::9", "dev", "eth0"])
    lb.run(["ip", "-6", "route", "add", "2001:db8:7::/48", "via", "2001:db8::9"])
    for what in ("unreachable", "blackhole", "prohibit"):
        lb.run(["ip", "route", "add", what, f"203.0.113.{len(what)}/32"])
    asked = [
        *("10.0.0.2", "10.0.0.77", "192.0.2.1", "198.51.100.1", "203.0.113.9", "203.0.113.11"),
        *("203.0.113.8", "172.16.0.1", "127.0.0.1", "2001:db8::2", "2001:db8::77", "::1"),
        *("2001:db8:7::1", "2001:db9::1"),
    ]
    for destination in map(ip_address, asked):
        with IPRoute() as netlink, RtReader() as reader:
            full: tuple[object, ...]
            lean: tuple[object, ...]
            try:
                family = 2 if destination.version == 4 else 10
                entry = netlink.route("get", dst=str(destination), family=family)[0]
                via = entry.get_attr("RTA_VIA")
                gateway = entry.get_attr("RTA_GATEWAY") or (via["addr"] if via else "")
                source = entry.get_attr("RTA_PREFSRC") or ""
                full = (entry["type"], entry.get_attr("RTA_OIF"), gateway, source)
            except NetlinkError as error:
                full = ("refused", error.code)
            try:
                route = reader.route(destination)
                lean = (route.kind, route.index, route.gateway, route.source)
            except OSError as error:
                lean = ("refused", error.errno)
        assert lean == full, destination
