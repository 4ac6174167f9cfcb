"""What both endpoints of a tunnel know without asking each other."""

from __future__ import annotations

from hashlib import blake2b

from tula.model.config import Backend, IPAddress, Tunnel

_OUTER = {4: 20, 6: 40}
_HEADERS = {Tunnel.IPIP: 0, Tunnel.GRE: 4, Tunnel.GUE: 8 + 4, Tunnel.VXLAN: 8 + 8 + 14}


def outer_address(backend: Backend) -> IPAddress:
    """The backend's endpoint of its tunnels: its IPv4 address, else its IPv6 address.

    Raises ValueError for one whose address is self: it has none, and no tunnel.
    """
    return min(backend.addresses, key=lambda address: address.version)


def overhead(tunnel: Tunnel, outer: int) -> int:
    """Bytes that a tunnel puts before a packet, by the version of its outer addresses.

    VXLAN: UDP, its own header and the inner MAC header (RFC 7348); GUE: UDP and its own
    (draft-ietf-intarea-gue); GRE without key (RFC 2784).
    """
    return _OUTER[outer] + _HEADERS[tunnel]


def vxlan_mac(remote: IPAddress) -> str:
    """The MAC that a backend's VXLAN device has to have.

    Locally administered; of an IPv4 address its four bytes, of an IPv6 address a digest.
    """
    packed = remote.packed
    tail = packed if remote.version == 4 else blake2b(packed, digest_size=4).digest()
    return ":".join(f"{byte:02x}" for byte in b"\x02\x54" + tail)
