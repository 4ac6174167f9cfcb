"""Reading nf_tables over netlink.

nft loads every element of every set before it lists anything (1.0.6), which takes half a second
beside a large table; these readers ask for what they need. Message and attribute numbers are
from include/uapi/linux/netfilter/nf_tables.h. Writing is left to nft.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from types import TracebackType

from tula.dataplane.nft.codec import RawElement
from tula.dataplane.nft.ruleset import Count

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS, _GET_OBJECT = 1, 4, 7, 10, 13, 19
_FAMILY_NETDEV = 5
_REQUEST, _DUMP = 0x1, 0x300
_DONE, _ERROR, _INTERRUPTED = 3, 2, 0x10
_HEADER = struct.Struct("=IHHII")
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_NESTED = 0x8000
_SET_COUNT = 20
_BUFFER = 1 << 18

Attributes = dict[int, memoryview]


class InterruptedDumpError(Exception):
    """The table changed while it was read; read again."""


def attributes(data: memoryview) -> Attributes:
    """The attributes of a message or of a nested attribute, by type; the last of equals."""
    found: Attributes = {}
    for kind, value in attribute_list(data):
        found[kind] = value
    return found


def attribute_list(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """The attributes in order."""
    at, end = 0, len(data)
    while at + 4 <= end:
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & _TYPE_MASK, data[at + 4 : at + length]
        at += (length + 3) & ~3


def _text(data: memoryview | None) -> str:
    return bytes(data).rstrip(b"\0").decode() if data is not None else ""


def _attribute(kind: int, value: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(value), kind) + value + b"\0" * (-len(value) % 4)


def _string_attribute(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


class NfReader:
    """A netlink socket in the network namespace of the thread that made it.

    Raises OSError as the kernel refuses; ``InterruptedDumpError`` when a dump was torn.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))
        self._sequence = 0

    def __enter__(self) -> NfReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._socket.close()

    def _dump(self, message: int, body: bytes) -> Iterator[memoryview]:
        """The payloads of a dump's answers, behind their nfgenmsg."""
        return self._ask(message, body, _REQUEST | _DUMP)

    def _ask(self, message: int, body: bytes, request: int) -> Iterator[memoryview]:
        self._sequence += 1
        general = struct.pack("=BBH", _FAMILY_NETDEV, 0, 0)
        length = _HEADER.size + len(general) + len(body)
        header = _HEADER.pack(length, _SUBSYSTEM | message, request, self._sequence, 0)
        self._socket.send(header + general + body)
        while True:
            answer = memoryview(self._socket.recv(_BUFFER))
            at = 0
            while at + _HEADER.size <= len(answer):
                length, kind, flags, sequence, _ = _HEADER.unpack_from(answer, at)
                payload = answer[at + _HEADER.size : at + length]
                at += (length + 3) & ~3
                if sequence != self._sequence:
                    continue  # left over from a dump that was given up
                if flags & _INTERRUPTED:
                    raise InterruptedDumpError
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    raise OSError(code, os.strerror(code))
                yield payload[4:]
                if not request & _DUMP:
                    return

    def has_table(self, table: str) -> bool:
        """Whether the netdev family holds the table."""
        # Read to the end: a dump that is left half-way would show in the next one.
        names = [_text(attributes(data).get(1)) for data in self._dump(_GET_TABLE, b"")]
        return table in names

    def sets(self, table: str) -> list[str]:
        """The names of the table's sets and maps; anonymous ones are left out."""
        names = []
        for data in self._dump(_GET_SET, _string_attribute(1, table)):
            found = attributes(data)
            flags = int.from_bytes(found[3], "big") if 3 in found else 0
            if not flags & 0x1 and _text(found.get(1)) == table:
                names.append(_text(found.get(2)))
        return names

    def counters(self, table: str) -> dict[str, Count]:
        """The table's named counters."""
        found: dict[str, Count] = {}
        for data in self._dump(_GET_OBJECT, _string_attribute(1, table)):
            entry = attributes(data)
            if _text(entry.get(1)) == table and int.from_bytes(entry[3], "big") == 1:
                found[_text(entry.get(2))] = _count(entry[4])
        return found

    def chains(self, table: str) -> dict[str, str]:
        """The table's chains, with the device of a base chain or nothing."""
        found: dict[str, str] = {}
        for data in self._dump(_GET_CHAIN, b""):
            entry = attributes(data)
            if _text(entry.get(1)) != table:
                continue
            device = ""
            if 4 in entry:
                hook = attributes(entry[4])
                device = _text(hook.get(3)) or ",".join(
                    _text(value) for _, value in attribute_list(hook.get(4, memoryview(b"")))
                )
            found[_text(entry.get(3))] = device
        return found

    def rule_comments(self, table: str) -> dict[str, list[str]]:
        """The comments of every chain's rules, in order; empty for a rule without one."""
        found: dict[str, list[str]] = {}
        for data in self._dump(_GET_RULE, _string_attribute(1, table)):
            entry = attributes(data)
            if _text(entry.get(1)) == table:
                comment = _comment(entry[7]) if 7 in entry else ""
                found.setdefault(_text(entry.get(2)), []).append(comment)
        return found

    def number_pairs(self, table: str, name: str) -> dict[int, int]:
        """The elements of a map from 4-byte numbers to 4-byte numbers, read in bulk.

        Raises ValueError if the map holds anything else.
        """
        pairs: dict[int, int] = {}
        body = _string_attribute(1, table) + _string_attribute(2, name)
        # List element, key, its value; data, its value: each attribute is (length, type).
        layout = struct.Struct("=12xI8xI")
        for data in self._dump(_GET_ELEMENTS, body):
            elements = attributes(data).get(3)
            if not elements:
                continue
            if len(elements) % layout.size or elements[:2] != struct.pack("=H", layout.size):
                raise ValueError(f"{name} holds elements that are no pairs of numbers")
            pairs.update(layout.iter_unpack(elements))
        return pairs

    def entries(self, table: str) -> dict[str, int | None]:
        """How many elements each map holds: None where the kernel does not tell (before 6.18)."""
        found: dict[str, int | None] = {}
        for data in self._dump(_GET_SET, _string_attribute(1, table)):
            entry = attributes(data)
            if _text(entry.get(1)) == table:
                count = entry.get(_SET_COUNT)
                found[_text(entry.get(2))] = int.from_bytes(count, "big") if count else None
        return found

    def element(self, table: str, name: str, key: bytes) -> RawElement | None:
        """The element with this key, if there is one; costs one look-up, however large the map."""
        value = _attribute(1, key)
        element = _attribute(_NESTED | 1, _attribute(_NESTED | 1, value))
        body = _string_attribute(1, table) + _string_attribute(2, name)
        body += _attribute(_NESTED | 3, element)
        try:
            for data in self._ask(_GET_ELEMENTS, body, _REQUEST):
                listed = attributes(data).get(3)
                for _, found in attribute_list(listed if listed is not None else memoryview(b"")):
                    return _element(attributes(found))
        except FileNotFoundError:
            return None
        return None

    def elements(self, table: str, name: str) -> Iterator[RawElement]:
        """The elements of any set or map."""
        body = _string_attribute(1, table) + _string_attribute(2, name)
        for data in self._dump(_GET_ELEMENTS, body):
            listed = attributes(data).get(3)
            if listed is not None:
                for _, element in attribute_list(listed):
                    yield _element(attributes(element))


def _element(entry: Attributes) -> RawElement:
    value: bytes | str = b""
    if 2 in entry:
        data = attributes(entry[2])
        value = bytes(data[1]) if 1 in data else _text(attributes(data[2]).get(2))
    count = None
    if 7 in entry:
        expression = attributes(entry[7])
        if _text(expression.get(1)) == "counter":
            count = _count(expression[2])
    return RawElement(
        key=bytes(attributes(entry[1])[1]) if 1 in entry else b"",
        data=value,
        key_end=bytes(attributes(entry[10])[1]) if 10 in entry else b"",
        comment=_comment(entry[6]) if 6 in entry else "",
        count=count,
    )


def _count(data: memoryview) -> Count:
    """NFTA_COUNTER_BYTES and NFTA_COUNTER_PACKETS, both 64 bits in network order."""
    entry = attributes(data)
    return Count(int.from_bytes(entry[2], "big"), int.from_bytes(entry[1], "big"))


def _comment(userdata: memoryview) -> str:
    """The comment in libnftnl's user data: (type, length, value), type 0 (udata.h)."""
    at = 0
    while at + 2 <= len(userdata):
        kind, length = userdata[at], userdata[at + 1]
        if kind == 0:
            return _text(userdata[at + 2 : at + 2 + length])
        at += 2 + length
    return ""
