"""ARP and neighbour discovery on the wire, read by scapy."""

from __future__ import annotations

import json
from collections.abc import Iterable
from ipaddress import ip_address

from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6ND_NS, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from tula.lab import Capture, Host, send_frame

_EXPERIMENTAL = 0x88B5
"""An EtherType for private use (IEEE 802): nobody answers it."""


def settled(sender: Host, capture: Capture, ifname: str = "eth0") -> list[bytes]:
    """What the capture has received, once everything that the sender sent before is there."""
    mark = bytes(
        Ether(dst="ff:ff:ff:ff:ff:ff", src=sender.mac(ifname), type=_EXPERIMENTAL) / b"mark"
    )
    earlier = sum(frame[12:14] == mark[12:14] for frame in capture.frames(outgoing=False))
    send_frame(sender, ifname, mark)
    capture.wait(lambda frame: frame[12:14] == mark[12:14], earlier + 1, outgoing=False)
    return capture.frames(outgoing=False)


def answers_for(address: str, frames: Iterable[bytes]) -> list[tuple[str, bool]]:
    """Who said that the address is his: the MAC, and whether without being asked."""
    found = []
    for frame in map(Ether, frames):
        if ARP in frame and frame[ARP].psrc == address:
            if frame[ARP].op == 2:
                found.append((frame[ARP].hwsrc, False))
            elif frame[ARP].pdst == address:
                found.append((frame[ARP].hwsrc, True))
        elif ICMPv6ND_NA in frame and _same(frame[ICMPv6ND_NA].tgt, address):
            mac = frame[ICMPv6NDOptDstLLAddr].lladdr if ICMPv6NDOptDstLLAddr in frame else frame.src
            found.append((mac, not frame[ICMPv6ND_NA].S))
    return found


def announcements_of(mac: str, frames: Iterable[bytes]) -> list[str]:
    """The addresses that this MAC announced without being asked, to everyone."""
    found = []
    for frame in map(Ether, frames):
        if frame.src != mac:
            continue
        if ARP in frame and frame[ARP].psrc == frame[ARP].pdst and frame.dst == "ff:ff:ff:ff:ff:ff":
            found.append(frame[ARP].psrc)
        elif ICMPv6ND_NA in frame and not frame[ICMPv6ND_NA].S and frame[IPv6].dst == "ff02::1":
            found.append(frame[ICMPv6ND_NA].tgt)
    return found


def probes_for(address: str, frames: Iterable[bytes]) -> list[bytes]:
    """Duplicate address detection: solicitations from nobody (RFC 4862, section 5.4.2)."""
    return [
        data
        for data in frames
        if ICMPv6ND_NS in (frame := Ether(data))
        and frame[IPv6].src == "::"
        and _same(frame[ICMPv6ND_NS].tgt, address)
    ]


def neighbour(host: Host, address: str) -> str:
    """The MAC that the host knows for the address; empty if it knows none."""
    shown = host.run(["ip", "-json", "neigh", "show", "to", address]).stdout
    return next((entry.get("lladdr", "") for entry in json.loads(shown or "[]")), "")


def _same(one: str, other: str) -> bool:
    return ip_address(one) == ip_address(other)
