"""The filter's program, run step by step as the kernel does (bpf_prog_run, filter.c)."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from tula.kernel.packet_filter import answers_filter
from tula.model.config import IPAddress

ARP, IPV4, IPV6 = 0x0806, 0x0800, 0x86DD
addresses = st.one_of(
    st.builds(IPv4Address, st.integers(0, 7)), st.builds(IPv6Address, st.integers(0, 7))
)


def passes(program: list[tuple[int, int, int, int]], protocol: int, data: bytes) -> bool:
    at, value = 0, 0
    while True:
        code, yes, no, k = program[at]
        at += 1
        if code == 0x20:
            value = protocol if k > 0xFFFFF000 - 1 else int.from_bytes(data[k : k + 4], "big")
        elif code == 0x15:
            at += yes if value == k else no
        elif code == 0x05:
            at += k
        else:
            return bool(k)


def packet(source: IPAddress, target: IPAddress) -> bytes:
    return bytes(12 if source.version == 4 else 8) + source.packed + target.packed


@given(own=st.lists(addresses), sources=st.lists(addresses), source=addresses, target=addresses)
def test_what_passes(
    own: list[IPAddress], sources: list[IPAddress], source: IPAddress, target: IPAddress
) -> None:
    program = answers_filter(own, sources)
    assert passes(program, ARP, bytes(28))
    assert not passes(program, 0x88B5, bytes(60))
    if source.version == target.version:
        protocol = IPV4 if source.version == 4 else IPV6
        wanted = target in own or source in sources
        assert passes(program, protocol, packet(source, target)) is wanted


def test_more_than_fits() -> None:
    four = [IPv4Address(n) for n in range(5000)]
    six = [IPv6Address(n) for n in range(5000)]
    assert len(answers_filter([*four, *six], [*four, *six])) <= 4096
