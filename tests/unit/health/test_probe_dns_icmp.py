"""dns with a server of ours; icmp with a socket that stands for a raw one (root has the real)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from support.probe_servers import closed_port, probe, settings, udp_server
from tula.health.check import FailureKind, Outcome
from tula.health.probes import send_probe
from tula.health.probes.icmp import echo
from tula.model.health import ProbeTarget

ADDRESSES = pytest.mark.parametrize("address", ["127.0.0.1", "::1"])


def replies(
    *records: str, code: dns.rcode.Rcode = dns.rcode.NOERROR, flags: int = 0
) -> Callable[[bytes], list[bytes]]:
    def answer(data: bytes) -> list[bytes]:
        query = dns.message.from_wire(data)
        response = dns.message.make_response(query)
        response.set_rcode(code)
        response.flags |= flags
        for record in records:
            response.answer.append(dns.rrset.from_text(*record.split(" ", 4)))
        return [response.to_wire()]

    return answer


A = "example.org. 60 IN A 192.0.2.1"


def looked_up(answer: Callable[[bytes], list[bytes]], address: str = "127.0.0.1") -> Outcome:
    async def run() -> Outcome:
        async with udp_server(answer, address) as port:
            return await probe(settings("dns", name="example.org", timeout=0.2), port, address)

    return asyncio.run(run())


@ADDRESSES
def test_a_record_passes(address: str) -> None:
    outcome = looked_up(replies(A), address)
    assert outcome.passed
    assert outcome.evidence.endswith(": answered NOERROR")


def late_and_right(data: bytes) -> list[bytes]:
    (right,) = replies(A)(data)
    return [bytes(2) + right[2:], b"x", right]


def other_question(data: bytes) -> list[bytes]:
    query = dns.message.make_query("example.com", "A")
    query.id = dns.message.from_wire(data).id
    return [dns.message.make_response(query).to_wire()]


@pytest.mark.parametrize(
    ("answer", "passed", "evidence"),
    [
        (replies(), False, "answered without a record of type A"),
        (replies(flags=dns.flags.TC), True, "NOERROR"),
        (replies(code=dns.rcode.NXDOMAIN), False, "answered NXDOMAIN, wanted NOERROR"),
        (replies(code=dns.rcode.SERVFAIL), False, "answered SERVFAIL"),
        (late_and_right, True, "NOERROR"),
        (other_question, False, "the answer is to another question"),
        (lambda data: [data], False, "the answer is to another question"),
        (lambda data: [data[:2] + b"\xff" * 50], False, "not a DNS message"),
        (lambda data: [data[:2]], False, "not a DNS message"),
        (lambda _: [], False, "no answer within 0.2 s"),
    ],
)
def test_answers(answer: Callable[[bytes], list[bytes]], passed: bool, evidence: str) -> None:
    outcome = looked_up(answer)
    assert outcome.passed is passed
    assert evidence in outcome.evidence


def test_refused_and_no_name() -> None:
    refused = asyncio.run(probe(settings("dns", name="example.org"), closed_port()))
    assert (refused.passed, refused.failure) == (False, FailureKind.REFUSED)
    no_name = asyncio.run(probe(settings("dns", name="a..b"), 53))
    assert no_name.passed is False
    assert "invalid name 'a..b'" in no_name.evidence


class AsRaw(socket.socket):
    """A datagram socket to a server of the test in place of a raw one to a host."""

    def setsockopt(self, *_: object) -> None:
        pass


class RawSockets:
    def open(self, target: ProbeTarget, kind: int, protocol: int = 0) -> socket.socket:
        assert kind == socket.SOCK_RAW
        families = {socket.IPPROTO_ICMP: socket.AF_INET, socket.IPPROTO_ICMPV6: socket.AF_INET6}
        assert (families[protocol] == socket.AF_INET) == (target.address.version == 4)
        return AsRaw(families[protocol], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


def pinged(answer: Callable[[bytes], list[bytes]], address: str) -> Outcome:
    async def run() -> Outcome:
        async with udp_server(answer, address) as port:
            target = ProbeTarget(ip_address(address), port)
            return await send_probe(settings("icmp", timeout=0.15), target, RawSockets())

    return asyncio.run(run())


REPLY = {"127.0.0.1": 0, "::1": 129}
HEADER = {"127.0.0.1": b"\x46" + bytes(23), "::1": b""}  # IPv4's with an option


@ADDRESSES
def test_the_reply_that_repeats_the_request_passes(address: str) -> None:
    def answer(data: bytes) -> list[bytes]:
        right = echo(REPLY[address], data[4:])
        others = [
            data,  # the request itself
            echo(REPLY[address], b"\0\1" + data[6:]),  # another's
            b"",
            b"\x45",
        ]
        return [HEADER[address] + packet for packet in (*others, right)]

    assert pinged(answer, address).passed


@ADDRESSES
def test_another_payload_fails_and_silence_too(address: str) -> None:
    other = pinged(lambda data: [HEADER[address] + echo(REPLY[address], data[4:10])], address)
    assert (other.passed, other.failure) == (False, FailureKind.ANSWER)
    silent = pinged(lambda _: [], address)
    assert (silent.passed, silent.failure) == (False, FailureKind.SILENT)
    assert "no echo reply within" in silent.evidence


def test_the_checksum() -> None:
    message = echo(8, bytes.fromhex("0001000a") + b"abcd")
    words = [int.from_bytes(message[i : i + 2]) for i in range(0, len(message), 2)]
    total = sum(words)
    while total > 0xFFFF:
        total = (total & 0xFFFF) + (total >> 16)
    assert total == 0xFFFF
