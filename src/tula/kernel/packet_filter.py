"""Classic BPF programs, and the one that picks the packets that a packet socket is for.

A balancer may forward a million packets a second; without a filter each of them would be copied to
a socket that listens to all. Instructions: include/uapi/linux/bpf_common.h and filter.h.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv6Address

from tula.model.config import IPAddress

Instruction = tuple[int, int, int, int]
"""code, jump when true, jump when false, k"""

_LOAD, _LOAD_BYTE, _EQUAL, _JUMP, _RETURN = 0x20, 0x30, 0x15, 0x05, 0x06
_PROTOCOL = 0xFFFFF000
"""SKF_AD_OFF + SKF_AD_PROTOCOL: the EtherType, wherever the packet came from."""
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
_SNAP = 1024
"""Bytes of a packet that are copied."""
_MOST4, _MOST_OWN6, _MOST6 = 400, 60, 200
"""Addresses that fit into a program of BPF_MAXINSNS (4,096) instructions: 2 for each of IPv4,
9 for each of IPv6."""
_SO_ATTACH_FILTER = 26


def answers_filter(own: Iterable[IPAddress], sources: Iterable[IPAddress]) -> list[Instruction]:
    """ARP, IP packets to the addresses ``own``, and those from ``sources``.

    For sockets without link-layer header (SOCK_DGRAM). What does not fit into a program is left
    out, sources first.
    """
    own, sources = list(own), list(sources)
    v4 = _block4(16, [a for a in own if isinstance(a, IPv4Address)][:_MOST4])
    v4 += _block4(12, [a for a in sources if isinstance(a, IPv4Address)][:_MOST4])
    v6 = _block6(24, [a for a in own if isinstance(a, IPv6Address)][:_MOST_OWN6])
    v6 += _block6(8, [a for a in sources if isinstance(a, IPv6Address)][:_MOST6])
    drop: Instruction = (_RETURN, 0, 0, 0)
    return [
        (_LOAD, 0, 0, _PROTOCOL),
        (_EQUAL, 0, 1, _ARP),
        (_RETURN, 0, 0, _SNAP),
        (_EQUAL, 0, 1, _IPV6),
        (_JUMP, 0, 0, 2 + len(v4) + 1),
        (_EQUAL, 1, 0, _IPV4),
        drop,
        *v4,
        drop,
        *v6,
        drop,
    ]


def protocol_filter(protocol: int) -> list[Instruction]:
    """IP packets of one protocol, of both versions; for sockets without link-layer header."""
    take: Instruction = (_RETURN, 0, 0, _SNAP)
    drop: Instruction = (_RETURN, 0, 0, 0)
    return [
        (_LOAD, 0, 0, _PROTOCOL),
        (_EQUAL, 0, 3, _IPV4),
        (_LOAD_BYTE, 0, 0, 9),
        (_EQUAL, 0, 1, protocol),
        take,
        (_LOAD, 0, 0, _PROTOCOL),
        (_EQUAL, 0, 3, _IPV6),
        (_LOAD_BYTE, 0, 0, 6),
        (_EQUAL, 0, 1, protocol),
        take,
        drop,
    ]


def packed(program: Sequence[Instruction]) -> bytes:
    """As an array of struct sock_filter."""
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in program)


def attach(opened: socket.socket, program: Sequence[Instruction]) -> None:
    """Attaches it to a socket. Raises OSError."""
    code = packed(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    fprog = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, fprog)


def _block4(offset: int, addresses: Sequence[IPv4Address]) -> list[Instruction]:
    """Accepts a packet with any of these at that offset; else the program goes on."""
    block: list[Instruction] = [(_LOAD, 0, 0, offset)] if addresses else []
    for address in addresses:
        block += [(_EQUAL, 0, 1, int(address)), (_RETURN, 0, 0, _SNAP)]
    return block


def _block6(offset: int, addresses: Sequence[IPv6Address]) -> list[Instruction]:
    block: list[Instruction] = []
    for address in addresses:
        words = struct.unpack("!4I", address.packed)
        for at, word in enumerate(words):
            block.append((_LOAD, 0, 0, offset + 4 * at))
            # Skips the rest of this address: two for each word that is left, and the return.
            block.append((_EQUAL, 0, 2 * (3 - at) + 1, word))
        block.append((_RETURN, 0, 0, _SNAP))
    return block
