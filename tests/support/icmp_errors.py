"""What routers on the way to a client tell the VIP, and reading it where it arrives."""

from __future__ import annotations

from typing import Any

from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import ICMPv6DestUnreach, IPv6
from scapy.layers.l2 import Ether

from support.crafted import Crafted
from support.packets import address_of, vip_of

ERRORS = {
    4: ((3, 4), (3, 1), (3, 3), (11, 0), (12, 0)),
    6: ((2, 0), (1, 0), (1, 4), (3, 0), (4, 1)),
}
"""Type and code; the path's MTU first."""
ROUTER = {4: "10.9.0.254", 6: "fd09::254"}


def inside(crafted: Crafted, family: int, protocol: str, port: int, client_port: int) -> Any:
    """The packet that someone dropped: an answer of the VIP to the client."""
    vip, client = vip_of(crafted.network, family), address_of(crafted.client, family)
    ip = (IP if family == 4 else IPv6)(src=vip, dst=client)
    return ip / (TCP if protocol == "tcp" else UDP)(sport=port, dport=client_port)


def error(crafted: Crafted, family: int, kind: tuple[int, int], inner: Any, to: str = "") -> Any:
    """What a router says about ``inner``; of an IPv4 packet it quotes 8 bytes (RFC 792)."""
    outer = crafted.ip(family, to, src=ROUTER[family])
    if family == 4:
        return outer / ICMP(type=kind[0], code=kind[1], nexthopmtu=1400) / bytes(inner)[:28]
    body = ICMPv6DestUnreach(type=kind[0], code=kind[1], unused=1400) / bytes(inner)[:1200]
    return outer / body


def reached(frames: list[bytes], family: int) -> list[tuple[int, int, int]]:
    """Type, code and the inner client port of every ICMP error among the frames."""
    found = []
    for frame in frames:
        ip = Ether(frame).payload
        if family == 4 and ip.haslayer(ICMP) and ip[ICMP].type != 8:
            data = bytes(ip[ICMP])
            found.append((data[0], data[1], int.from_bytes(data[30:32], "big")))
        elif (
            family == 6
            and getattr(ip, "version", None) == 6
            and ip.nh == 58
            and bytes(ip.payload)[0] < 128
        ):
            data = bytes(ip.payload)
            found.append((data[0], data[1], int.from_bytes(data[50:52], "big")))
    return found
