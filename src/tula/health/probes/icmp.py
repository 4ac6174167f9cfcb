"""icmp: the host answers an echo request (ICMP, ICMPv6)."""

from __future__ import annotations

import asyncio
import secrets
import socket
import struct
from collections.abc import Iterable, Iterator
from contextlib import ExitStack

from tula.health.check import FailureKind
from tula.health.probes.attempt import Attempt, Failure
from tula.model.monitor import IcmpProbe

_PROTOCOL = {4: socket.IPPROTO_ICMP, 6: socket.IPPROTO_ICMPV6}
_ERRORS = {4: (3,), 6: (1, 4)}
_WORDS = {
    4: {(3, 2): "protocol unreachable", (3, 3): "port unreachable", (3, 13): "prohibited"},
    6: {(1, 1): "prohibited", (1, 4): "port unreachable", (4, 1): "protocol unreachable"},
}
_NOT_TAKEN = {4: {(3, 2), (3, 3)}, 6: {(1, 4), (4, 1)}}
_LONGEST = 2048
_REQUEST, _REPLY = {4: 8, 6: 128}, {4: 0, 6: 129}
_SOL_RAW, _ICMP_FILTER = 255, 1
_ICMP6_FILTER = 1
_TOKEN = 24


async def probe(settings: IcmpProbe, attempt: Attempt) -> str:
    """Sends one request, and waits for the reply that repeats it.

    A raw socket gets every reply from that address, those of other probes too, so the reply must
    have this one's id, number and payload.
    """
    version = attempt.target.address.version
    attempt.stage = "no echo reply"
    with attempt.opened(socket.SOCK_RAW, _PROTOCOL[version]) as opened:
        _types_only(opened, version, (_REPLY[version],))
        await attempt.connect(opened)
        wanted = secrets.token_bytes(4 + _TOKEN)
        if settings.errors:
            return await _listen(attempt, opened, version, wanted)
        opened.send(echo(_REQUEST[version], wanted))
        while True:
            if _is_reply(await attempt.receive(opened, _LONGEST), version, wanted):
                return "echo reply"


def _is_reply(packet: bytes, version: int, wanted: bytes) -> bool:
    packet = message_of(packet, version)
    if len(packet) < 8 or packet[:2] != bytes([_REPLY[version], 0]):
        return False
    if packet[4:] != wanted and packet[4:8] == wanted[:4]:
        raise Failure("an echo reply with other contents", FailureKind.ANSWER)
    return packet[4:] == wanted


async def _listen(attempt: Attempt, opened: socket.socket, version: int, wanted: bytes) -> str:
    """Waits for the reply, or for an error that a host on the path sends about the tunnel's packet.

    That comes to the tunnel's address, in an error of ICMP or ICMPv6 that quotes the packet: by
    the request's contents it is known.
    """
    with ExitStack() as stack:
        errors = {
            family: stack.enter_context(attempt.listening(family, protocol))
            for family, protocol in _PROTOCOL.items()
        }
        for family, listening in errors.items():
            _types_only(listening, family, _ERRORS[family])
        woken = asyncio.Event()
        for each in (opened, *errors.values()):
            attempt.loop.add_reader(each.fileno(), woken.set)
            stack.callback(attempt.loop.remove_reader, each.fileno())
        opened.send(echo(_REQUEST[version], wanted))
        while True:
            await woken.wait()
            woken.clear()
            # Errors first: of some, the kernel tells the socket too, in other words.
            for family, listening in errors.items():
                for packet in _waiting(listening, own=False):
                    if wanted in packet:
                        raise failure_in_error(packet, family)
            try:
                packets = list(_waiting(opened))
            except OSError as error:
                raise Failure((error.strerror or "").lower(), FailureKind.UNREACHABLE) from error
            if any(_is_reply(packet, version, wanted) for packet in packets):
                return "echo reply"


def _waiting(opened: socket.socket, *, own: bool = True) -> Iterator[bytes]:
    """What has come already; ``own``: what the kernel says of its packets is raised."""
    while True:
        try:
            packet = opened.recv(_LONGEST)
        except BlockingIOError:
            return
        except OSError:
            if own:
                raise
        else:
            yield packet


def failure_in_error(packet: bytes, version: int) -> Failure:
    """What an ICMP error says of a packet that was forwarded.

    REFUSED: that the host has no such tunnel.
    """
    message = message_of(packet, version)
    kind, code, quoted = message[0], message[1], message[8:]
    word = _WORDS[version].get((kind, code), "unreachable")
    around = quoted[9 if version == 4 else 6]
    ends_nowhere = (kind, code) in _NOT_TAKEN[version] and around != _PROTOCOL[version]
    return Failure(f"{word!r}", FailureKind.REFUSED if ends_nowhere else FailureKind.UNREACHABLE)


def message_of(packet: bytes, version: int) -> bytes:
    """Without the header, which IPv4 alone hands out; its length is in words (RFC 791)."""
    return packet[(packet[0] & 0x0F) * 4 :] if version == 4 and packet else packet


def echo(kind: int, body: bytes) -> bytes:
    """The message with its checksum; of ICMPv6 the kernel writes another (RFC 3542)."""
    message = struct.pack("!BBH", kind, 0, 0) + body
    total = sum(struct.unpack(f"!{len(message) // 2}H", message))
    total = (total & 0xFFFF) + (total >> 16)
    total = (total & 0xFFFF) + (total >> 16)
    return message[:2] + struct.pack("!H", ~total & 0xFFFF) + message[4:]


def _types_only(opened: socket.socket, version: int, types: Iterable[int]) -> None:
    """Has the kernel drop other types: bits that are set are not let through."""
    if version == 4:
        passing = sum(1 << number for number in types)
        opened.setsockopt(_SOL_RAW, _ICMP_FILTER, struct.pack("=I", 0xFFFFFFFF ^ passing))
        return
    words = [0xFFFFFFFF] * 8
    for number in types:
        words[number // 32] ^= 1 << (number % 32)
    opened.setsockopt(socket.IPPROTO_ICMPV6, _ICMP6_FILTER, struct.pack("=8I", *words))
