"""What passed on the wire, read alike for IPv4 and IPv6, TCP and UDP."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, NamedTuple

from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from tula.lab import Capture, Host, Network, tcp_ask, udp_ask, wait_until

ASK = {"tcp": tcp_ask, "udp": udp_ask}
FAMILIES = (4, 6)
PROTOCOLS = ("tcp", "udp")


class Seen(NamedTuple):
    """One TCP or UDP packet of a capture; ``hops`` is its TTL or hop limit."""

    from_mac: str
    to_mac: str
    source: str
    sport: int
    destination: str
    dport: int
    hops: int
    payload: bytes


def is_of(address: str, family: int) -> bool:
    """Whether the address is of this family."""
    return (":" in address) == (family == 6)


def read_packets(frames: Iterable[bytes]) -> list[Seen]:
    """The TCP and UDP packets among the frames, VLAN-tagged ones too; others are left out."""
    found = []
    for frame in map(Ether, frames):
        ip = frame.getlayer(IP) or frame.getlayer(IPv6)
        transport = frame.getlayer(TCP) or frame.getlayer(UDP)
        if transport is not None:
            hops = ip.ttl if isinstance(ip, IP) else ip.hlim
            found.append(
                Seen(
                    *(frame.src, frame.dst, ip.src, transport.sport, ip.dst, transport.dport),
                    *(hops, bytes(transport.payload)),
                )
            )
    return found


class Watch:
    """Captures at several hosts at once, on one interface of each."""

    def __init__(self, captures: dict[str, Capture]) -> None:
        self._captures = captures

    def frames(self, host: Host, outgoing: bool | None = None) -> list[bytes]:
        """What the host's interface received, sent, or both."""
        return self._captures[host.name].frames(outgoing)

    def packets(self, host: Host, outgoing: bool | None = None) -> list[Seen]:
        """The TCP and UDP packets among them."""
        return read_packets(self.frames(host, outgoing))

    def wait(self, host: Host, count: int, outgoing: bool | None = None) -> list[Seen]:
        """At least so many TCP and UDP packets, once they are there."""

        def enough() -> list[Seen]:
            packets = self.packets(host, outgoing)
            return packets if len(packets) >= count else []

        return wait_until(enough, what=f"{count} packets at {host.name}")


@contextmanager
def watching(*hosts: Host, ifname: str = "eth0") -> Iterator[Watch]:
    """Captures at these hosts for the block; what they saw can be read after it too."""
    with ExitStack() as stack:
        yield Watch({host.name: stack.enter_context(Capture(host, ifname)) for host in hosts})


def vip_of(network: Network, family: int) -> str:
    """The first VIP of the family."""
    return network.vip4 if family == 4 else network.vip6


def address_of(host: Host, family: int, ifname: str = "eth0") -> str:
    """The host's own address of the family: of its subnet, not link-local, no VIP."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    with host.netlink() as netlink:
        index = netlink.link_lookup(ifname=ifname)[0]
        held = list(netlink.get_addr(family=kind, index=index, scope=0))
    return next(
        str(e.get("address")) for e in held if e["prefixlen"] < (128 if family == 6 else 32)
    )


def ip_to(host: Host, destination: str, hops: int = 64) -> Any:
    """An IP header of scapy's from the host's own address to a destination."""
    if ":" in destination:
        return IPv6(src=address_of(host, 6), dst=destination, hlim=hops)
    return IP(src=address_of(host, 4), dst=destination, ttl=hops)


@contextmanager
def udp_socket(host: Host, family: int, port: int, address: str = "") -> Iterator[socket.socket]:
    """A bound UDP socket in the host that waits at most 3 s for a datagram."""
    kind = socket.AF_INET6 if family == 6 else socket.AF_INET
    with host.socket(kind, socket.SOCK_DGRAM) as opened:
        opened.settimeout(3.0)
        opened.bind((address, port))
        yield opened
