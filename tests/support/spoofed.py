"""Packets that somebody put into a tunnel's headers by hand."""

from __future__ import annotations

from ipaddress import ip_address

from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.layers.vxlan import VXLAN
from scapy.packet import Packet, Raw

from support.packets import address_of
from tula.lab import Host, send_frame
from tula.model.config import TunnelSettings
from tula.plan.tunnels import vxlan_mac

_PROTOCOLS = {4: 4, 6: 41}
"""IPv4 and IPv6 inside, as the outer header names them (RFC 2003, RFC 2473)."""


def encapsulated(kind: str, source: str, backend: str, inside: Packet) -> bytes:
    """An IP packet from ``source`` to the backend's own address with a packet inside."""
    settings = TunnelSettings()
    outer = (IP if ":" not in source else IPv6)(src=source, dst=backend)
    protocol = _PROTOCOLS[inside.version]
    if kind == "gre":
        return bytes(outer / GRE() / inside)
    if kind == "gue":
        # Version 0, no options, the protocol inside (draft-ietf-intarea-gue, section 3.1).
        header = Raw(bytes([0, protocol, 0, 0]))
        return bytes(outer / UDP(sport=40000, dport=settings.gue_port) / header / inside)
    if kind == "vxlan":
        mac = Ether(dst=vxlan_mac(ip_address(backend)), src="02:00:00:00:00:01")
        header = VXLAN(vni=settings.vxlan_id, flags="Instance")
        return bytes(outer / UDP(sport=40000, dport=settings.vxlan_port) / header / mac / inside)
    field = {"proto": protocol} if outer.version == 4 else {"nh": protocol}
    for name, value in field.items():
        setattr(outer, name, value)
    return bytes(outer / inside)


def question(client: Host, vip: str, sport: int) -> Packet:
    """A datagram from a client to port 80 of a VIP."""
    six = ":" in vip
    ip = (IPv6 if six else IP)(src=address_of(client, 6 if six else 4), dst=vip)
    return ip / UDP(sport=sport, dport=80) / Raw(b"?")


def send_by(host: Host, gateway_mac: str, packet: bytes) -> None:
    """Sends it as the host's frame to its gateway."""
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    send_frame(host, "eth0", bytes(Ether(src=host.mac(), dst=gateway_mac, type=kind) / packet))
