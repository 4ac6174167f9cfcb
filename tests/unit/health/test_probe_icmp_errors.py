"""What an ICMP error says of a packet that was forwarded: does its tunnel end at the backend?"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest

from tula.health.check import FailureKind
from tula.health.probes.icmp import failure_in_error


def error(version: int, kind: int, code: int, around: int) -> bytes:
    """As a raw socket gets it: the header of IPv4 is there, that of IPv6 is not."""
    message = bytes([kind, code]) + bytes(6)
    if version == 4:
        ends = IPv4Address("10.0.0.2").packed + IPv4Address("10.0.0.1").packed
        quoted = bytes([0x45, 0, 0, 48, 0, 0, 0, 0, 63, around, 0, 0]) + ends
        return bytes([0x45]) + bytes(19) + message + quoted + bytes(28)
    ends = IPv6Address("2001:db8::2").packed + IPv6Address("2001:db8::1").packed
    return message + bytes([0x60, 0, 0, 0, 0, 28, around, 63]) + ends + bytes(28)


@pytest.mark.parametrize(
    ("version", "kind", "code", "around", "reason", "said"),
    [
        (4, 3, 3, 17, FailureKind.REFUSED, "port unreachable"),
        (4, 3, 2, 47, FailureKind.REFUSED, "protocol unreachable"),
        (4, 3, 3, 4, FailureKind.REFUSED, "port unreachable"),
        (4, 3, 13, 17, FailureKind.UNREACHABLE, "prohibited"),
        (4, 3, 1, 41, FailureKind.UNREACHABLE, "unreachable"),
        (6, 1, 4, 17, FailureKind.REFUSED, "port unreachable"),
        (6, 4, 1, 47, FailureKind.REFUSED, "protocol unreachable"),
        (6, 1, 1, 41, FailureKind.UNREACHABLE, "prohibited"),
        # Of the echo itself: it came out of the tunnel, and a firewall rejected it.
        (4, 3, 3, 1, FailureKind.UNREACHABLE, "port unreachable"),
        (6, 1, 4, 58, FailureKind.UNREACHABLE, "port unreachable"),
    ],
)
def test_an_error_about_the_tunnels_packet_says_that_it_does_not_end_there(
    version: int, kind: int, code: int, around: int, reason: FailureKind, said: str
) -> None:
    failure = failure_in_error(error(version, kind, code, around), version)
    assert (failure.kind, failure.evidence) == (reason, repr(said))
