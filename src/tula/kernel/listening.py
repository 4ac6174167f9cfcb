"""On which addresses and ports programs of this network namespace listen."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from tula.model.config import IPAddress, Protocol
from tula.model.errors import KernelError

Listener = tuple[Protocol, IPAddress, int]
"""Protocol, address (0.0.0.0 or :: for all) and port."""

_FILES = {"tcp": Protocol.TCP, "tcp6": Protocol.TCP, "udp": Protocol.UDP, "udp6": Protocol.UDP}
_TCP_LISTEN = "0A"
_UDP_UNCONNECTED = "07"


def read_listeners() -> frozenset[Listener]:
    """All of them, by proc_pid_net(5). Raises KernelError."""
    found: set[Listener] = set()
    for name, protocol in _FILES.items():
        try:
            lines = (Path("/proc/thread-self/net") / name).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # IPv6 is not there at all
        except OSError as error:
            raise KernelError(f"cannot read this machine's sockets: {error.strerror}") from error
        state = _TCP_LISTEN if protocol is Protocol.TCP else _UDP_UNCONNECTED
        for fields in (line.split() for line in lines):
            if len(fields) > 3 and fields[3] == state:
                address, _, port = fields[1].partition(":")
                found.add((protocol, _address(address), int(port, 16)))
    return frozenset(found)


def _address(text: str) -> IPAddress:
    """Words of four bytes, each in the machine's own order (net/ipv4/tcp_ipv4.c, %08X)."""
    words = (int(text[at : at + 8], 16) for at in range(0, len(text), 8))
    packed = b"".join(word.to_bytes(4, "little") for word in words)
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)
