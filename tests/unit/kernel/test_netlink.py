"""Netlink's framing, against a kernel that is the other side of a socket pair."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

import pytest

from tula.kernel.netlink import (
    DUMP,
    HEADER,
    REQUEST,
    ROUTE,
    InterruptedDumpError,
    NetlinkSocket,
    attribute,
    attribute_list,
    error_of,
    pack_message,
    split_messages,
    string_attribute,
    text_of,
)

ERROR, DONE, MULTI, INTERRUPTED = 2, 3, 0x2, 0x10
LINK = 18


class Peer:
    """What the kernel would say: ``netlink`` hears it."""

    def __init__(self) -> None:
        self.netlink = NetlinkSocket(ROUTE)
        self.netlink.close()
        self.netlink.socket, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def say(self, *messages: bytes) -> None:
        self.kernel.send(b"".join(messages))

    def asked(self) -> list[tuple[int, int, bytes]]:
        data = memoryview(self.kernel.recv(1 << 16))
        return [(kind, flags, bytes(body)) for kind, flags, _, body in split_messages(data)]

    def close(self) -> None:
        self.netlink.close()
        self.kernel.close()


@pytest.fixture
def peer() -> Iterator[Peer]:
    made = Peer()
    yield made
    made.close()


def message(kind: int, body: bytes, flags: int = MULTI, sequence: int = 1) -> bytes:
    """Padded, as they stand one behind another."""
    made = pack_message(kind, body, flags, sequence)
    return made + bytes(-len(made) % 4)


def done(code: int = 0, sequence: int = 1) -> bytes:
    return message(DONE, struct.pack("=i", -code), sequence=sequence)


def test_messages_and_what_is_left_of_one() -> None:
    data = message(7, b"abc") + message(8, b"") + b"\0" * 5
    found = [(kind, bytes(body)) for kind, _, _, body in split_messages(memoryview(data))]
    assert found == [(7, b"abc"), (8, b"")]
    assert list(split_messages(memoryview(b""))) == []


def test_a_dump_in_several_readings(peer: Peer) -> None:
    peer.say(message(LINK, b"one!"), message(LINK, b"two"))
    peer.say(message(LINK, b"last"), done())
    assert list(map(bytes, peer.netlink.dump(LINK, b"body"))) == [b"one!", b"two", b"last"]
    assert peer.asked() == [(LINK, REQUEST | DUMP, b"body")]


def test_what_was_left_of_another_request_is_passed_over(peer: Peer) -> None:
    peer.say(done(sequence=1))
    list(peer.netlink.dump(LINK, b""))
    peer.say(message(LINK, b"old!", sequence=1), done(sequence=1))
    peer.say(message(LINK, b"new!", sequence=2), done(sequence=2))
    assert list(map(bytes, peer.netlink.dump(LINK, b""))) == [b"new!"]


def test_a_torn_dump_is_read_to_its_end_and_then_refused(peer: Peer) -> None:
    peer.say(message(LINK, b"one!", MULTI | INTERRUPTED), message(LINK, b"two!"), done())
    found: list[bytes] = []
    with pytest.raises(InterruptedDumpError):
        found.extend(map(bytes, peer.netlink.dump(LINK, b"")))
    assert found == [b"one!", b"two!"]
    peer.say(message(LINK, b"new!", sequence=2), done(sequence=2))
    assert list(map(bytes, peer.netlink.dump(LINK, b""))) == [b"new!"]


def test_a_torn_dump_may_be_taken_as_it_is(peer: Peer) -> None:
    peer.say(message(LINK, b"one!", MULTI | INTERRUPTED), done())
    assert list(map(bytes, peer.netlink.dump(LINK, b"", torn=True))) == [b"one!"]


def test_a_refusal_and_a_dump_that_ends_by_an_error(peer: Peer) -> None:
    peer.say(message(ERROR, struct.pack("=i", -1) + bytes(HEADER.size)))
    with pytest.raises(PermissionError):
        list(peer.netlink.dump(LINK, b""))
    # The map went while it was dumped: what came so far is not all of it.
    peer.say(message(LINK, b"one!", sequence=2), done(2, sequence=2))
    with pytest.raises(FileNotFoundError):
        list(peer.netlink.dump(LINK, b""))


def test_as_many_answers_as_were_asked_for(peer: Peer) -> None:
    peer.say(message(LINK, b"one!", 0), message(LINK, b"two!", 0))
    assert list(map(bytes, peer.netlink.ask(LINK, b"body", 2))) == [b"one!", b"two!"]
    assert peer.asked() == [(LINK, REQUEST, b"body")]


def test_what_waits_is_told_or_thrown_away_without_waiting(peer: Peer) -> None:
    assert list(peer.netlink.waiting()) == []
    peer.say(message(LINK, b"one!"))
    peer.say(message(ERROR, struct.pack("=i", 0) + bytes(HEADER.size)))
    first, second = peer.netlink.waiting()
    assert (first[0], bytes(first[3])) == (LINK, b"one!")
    assert [error_of(each[0], each[3]) for each in (first, second)] == [None, 0]
    peer.say(message(LINK, b"one!"))
    peer.netlink.forget()
    assert list(peer.netlink.waiting()) == []


def test_attributes_are_padded_and_texts_may_be_any_bytes() -> None:
    data = string_attribute(1, "\udcff") + attribute(2, b"abcde") + attribute(3, b"")
    found = dict(attribute_list(memoryview(data)))
    assert text_of(found[1]) == "\udcff"
    assert bytes(found[2]) == b"abcde"
    assert bytes(found[3]) == b""
    assert len(data) % 4 == 0
