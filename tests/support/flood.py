"""Packets of very many new sources, as fast as one thread sends them."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address

from tula.lab import Host

SOURCES = {4: 0x0AC80000, 6: 0x20010DB8 << 96}
"""From 10.200.0.0 and from 2001:db8:: on; nobody has these, and no answer finds a way."""


def flood(sender: Host, to: Host, vip: str, port: int, protocol: str, count: int) -> None:
    """So many TCP SYNs or UDP datagrams, each from an address and a port of its own.

    Their transport checksum is wrong: the balancer forwards them, and backends have no work.
    """
    version = ip_address(vip).version
    transport = (
        struct.pack("!HHIIBBHHH", 0, port, 1, 0, 0x50, 2, 1024, 0xBAD, 0)
        if protocol == "tcp"
        else struct.pack("!HHHH8x", 0, port, 16, 0xBAD)
    )
    number = 6 if protocol == "tcp" else 17
    target = ip_address(vip).packed
    macs = bytes.fromhex((to.mac() + sender.mac()).replace(":", ""))
    if version == 4:
        length = 20 + len(transport)
        ip = struct.pack("!BBHHHBBHI4s", 0x45, 0, length, 0, 0, 64, number, 0, 0, target)
        frame = bytearray(macs + b"\x08\x00" + ip + transport)
        sport, rest = 34, sum(struct.unpack("!10H", ip))
    else:
        ip = struct.pack("!IHBB16x16s", 6 << 28, len(transport), number, 64, target)
        frame = bytearray(macs + b"\x86\xdd" + ip + transport)
        sport, rest = 54, 0
    with sender.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) as opened:
        opened.bind(("eth0", 0))
        for n in range(count):
            address = SOURCES[version] + n
            if version == 4:
                total = rest + (address >> 16) + (address & 0xFFFF)
                total = (total & 0xFFFF) + (total >> 16)
                struct.pack_into("!HI", frame, 24, ~total & 0xFFFF, address)
            else:
                struct.pack_into("!QQ", frame, 22, address >> 64, address & (1 << 64) - 1)
            struct.pack_into("!H", frame, sport, 1024 + n * 7 % 60000)
            opened.send(frame)
