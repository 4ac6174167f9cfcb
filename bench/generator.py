"""The two ends of a measurement, as XDP programs: frames of many flows, and what counts them.

The source rewrites the whole header of every frame (frames are recycled, and the balancer has
written into them), for a flow drawn at random::

    flow = random mod flows        client  198.18.(flow >> 8 & 3).(flow & 255)   1,024 of them
                                   port    1024 + flow / 1024
    service = flow mod services    VIP     198.19.0.1 + service

Checksums hold without being computed: a field that nobody reads (the IPv4 identification, the
first word of an IPv6 payload, the TCP acknowledgement) is the complement of what varies.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

import bpf
from bpf import R0, R1, R2, R3, R4, R5, R6, R7, R8, U16, U32, U64, Program

CLIENTS = {4: IPv4Address("198.18.0.0"), 6: IPv6Address("2001:db8:c::")}
VIPS = {4: IPv4Address("198.19.0.0"), 6: IPv6Address("2001:db8:f::")}
SERVICE_PORT = 53
BACKEND_MAC = "02:be:00:00:00:{:02x}"
"""The MAC of backend 0, 1, ...: where a frame went is told by its last byte."""
ELSEWHERE = 255
"""Where the sink counts frames that are for no backend."""

_CLIENT_BITS = 10
_FIRST_PORT = 1024


@dataclass(frozen=True, slots=True)
class Traffic:
    """What the source sends."""

    flows: int = 1000
    services: int = 1
    version: int = 4
    protocol: str = "udp"

    def vip(self, service: int) -> IPv4Address | IPv6Address:
        """The VIP of service 0, 1, ..."""
        return ip_address(VIPS[self.version].packed[:-2] + (service + 1).to_bytes(2, "big"))


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the fields that vary stand in the frame."""

    client: int
    vip: int
    port: int
    balance: tuple[tuple[int, bool], ...]
    """Words that make up for the others: offset, and whether ports are in that checksum."""


def frame_of(traffic: Traffic, source: str, target: str) -> bytes:
    """The frame of flow 0 between two MACs."""
    macs = bytes.fromhex(target.replace(":", "") + source.replace(":", ""))
    transport = _transport(traffic)
    client, vip = CLIENTS[traffic.version].packed, VIPS[traffic.version].packed
    number = 17 if traffic.protocol == "udp" else 6
    if traffic.version == 4:
        length = 20 + len(transport)
        ip = struct.pack(">BBHHHBBH", 0x45, 0, length, 0, 0x4000, 64, number, 0) + client + vip
        # Identification and what varies add up to 0xffff.
        ip = ip[:10] + struct.pack(">H", _checksum(ip + b"\xff\xff")) + ip[12:]
        return macs + b"\x08\x00" + ip + transport
    ip = struct.pack(">IHBB", 6 << 28, len(transport), number, 64) + client + vip
    return macs + b"\x86\xdd" + ip + transport


def source_program(traffic: Traffic, frame: bytes, index: int) -> Program:
    """Writes a flow's headers into each frame and hands it to the interface."""
    layout = _layout(traffic)
    written = (max(layout.port, layout.balance[-1][0]) + 2 + 7) // 8 * 8
    program = Program()
    program.register("move", R6, R1)
    program.call(bpf.PRANDOM_U32)
    program.number("mod", R0, traffic.flows)
    program.register("move", R7, R0)
    program.register("move", R8, R0)
    program.number("mod", R8, traffic.services)
    program.number("add", R8, 1)
    program.load(U32, R2, R6, 0)
    program.load(U32, R3, R6, 4)
    program.register("move", R4, R2)
    program.add_number(R4, written)
    program.jump_if_register("greater", R4, R3, "short")
    for at in range(0, written, 8):
        program.wide(R1, int.from_bytes(frame[at : at + 8], "little"))
        program.store(U64, R2, at, R1)
    program.register("move", R3, R7)
    program.number("and", R3, (1 << _CLIENT_BITS) - 1)
    program.number("shift_right", R7, _CLIENT_BITS)
    program.number("add", R7, _FIRST_PORT)
    program.register("move", R4, R3)
    program.register("add", R4, R8)
    for offset, with_ports in layout.balance:
        program.register("move", R5, R4)
        if with_ports:
            program.register("add", R5, R7)
        # Never above 17 bits: at most 0x3ff + 0xffff + 0xffff.
        program.register("move", R0, R5)
        program.number("shift_right", R0, 16)
        program.number("and", R5, 0xFFFF)
        program.register("add", R5, R0)
        program.number("xor", R5, 0xFFFF)
        program.big_endian(R5)
        program.store(U16, R2, offset, R5)
    for register, offset in ((R3, layout.client), (R8, layout.vip), (R7, layout.port)):
        program.big_endian(register)
        program.store(U16, R2, offset, register)
    program.number("move", R1, index)
    program.number("move", R2, 0)
    program.call(bpf.REDIRECT)
    program.leave()
    program.label("short")
    program.leave(bpf.XDP_ABORTED)
    return program


def sink_program(counters: bpf.PerCpuCounters) -> Program:
    """Counts each frame by the backend whose MAC it has, and drops it."""
    program = Program()
    program.load(U32, R2, R1, 0)
    program.load(U32, R3, R1, 4)
    program.register("move", R4, R2)
    program.add_number(R4, 14)
    program.jump_if_register("greater", R4, R3, "out")
    program.load(bpf.U8, R5, R2, 5)
    program.load(U32, R4, R2, 0)
    program.jump_if("equal", R4, int.from_bytes(bytes.fromhex("02be0000"), "little"), "known")
    program.number("move", R5, ELSEWHERE)
    program.label("known")
    program.store(U32, bpf.R10, -4, R5)
    program.register("move", R2, bpf.R10)
    program.add_number(R2, -4)
    program.map(R1, counters.descriptor)
    program.call(bpf.MAP_LOOKUP)
    program.jump_if("equal", R0, 0, "out")
    program.load(U64, R1, R0, 0)
    program.add_number(R1, 1)
    program.store(U64, R0, 0, R1)
    program.label("out")
    program.leave(bpf.XDP_DROP)
    return program


def _layout(traffic: Traffic) -> _Layout:
    udp = traffic.protocol == "udp"
    if traffic.version == 4:
        # UDP without a checksum; TCP's acknowledgement number makes up for the rest.
        # UDP goes without a checksum.
        balance = ((18, False),) if udp else ((18, False), (44, True))
        return _Layout(client=28, vip=32, port=34, balance=balance)
    return _Layout(client=36, vip=52, port=54, balance=((62 if udp else 64, True),))


def _transport(traffic: Traffic) -> bytes:
    """Transport header and payload of flow 0; its varying fields 0, its checksum right."""
    addresses = CLIENTS[traffic.version].packed + VIPS[traffic.version].packed
    if traffic.protocol == "udp":
        length = 26
        head = struct.pack(">HHHH", 0, SERVICE_PORT, length, 0)
        body, at = head + bytes(length - 8), 6
        if traffic.version == 4:
            return body
        pseudo = addresses + struct.pack(">II", length, 17)
    else:
        # A pure acknowledgement with time stamps, as connections have: 32 bytes.
        options = struct.pack(">BBBBII", 1, 1, 8, 10, 1, 1)
        head = struct.pack(">HHIIBBHHH", 0, SERVICE_PORT, 1, 0, 0x80, 0x10, 512, 0, 0)
        body, at = head + options, 16
        pseudo = addresses + struct.pack(">II", len(body), 6)
    checksum = _checksum(pseudo + body + b"\xff\xff")
    return body[:at] + struct.pack(">H", checksum) + body[at + 2 :]


def _checksum(data: bytes) -> int:
    """The Internet checksum (RFC 1071)."""
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
