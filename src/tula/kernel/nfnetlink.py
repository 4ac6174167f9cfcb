"""Reading nf_tables over netlink.

nft loads every element of every set before it lists anything (1.0.6), which takes half a second
beside a large table; these readers ask for what they need. Message and attribute numbers are
from include/uapi/linux/netfilter/nf_tables.h. nfbatch.py and nft write.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType

from tula.dataplane.nft.codec import RawElement
from tula.kernel.attributes import (
    Attributes,
    attribute,
    attribute_list,
    attributes,
    comment_of,
    nested,
    string_attribute,
    text_of,
)
from tula.model.stats import Count

_NETLINK_NETFILTER = 12
_SUBSYSTEM = 10 << 8
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS, _GET_OBJECT = 1, 4, 7, 10, 13, 19
_FAMILY_NETDEV = 5
_REQUEST, _DUMP = 0x1, 0x300
_DONE, _ERROR, _INTERRUPTED = 3, 2, 0x10
_HEADER = struct.Struct("=IHHII")
_SET_COUNT = 20
_BUFFER = 1 << 18
_NOTHING = memoryview(b"")
_AT_ONCE = 64
"""Elements that are asked for in one message: their answers must fit the socket's buffer."""


class InterruptedDumpError(Exception):
    """The table changed while it was read; read again."""


class NfReader:
    """A netlink socket in the network namespace of the thread that made it.

    Raises OSError as the kernel refuses; ``InterruptedDumpError`` when a dump was torn.
    """

    def __init__(self, family: int = _FAMILY_NETDEV) -> None:
        self._family = family
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

    def dump(self, message: int) -> Iterator[memoryview]:
        """All of the family's chains, rules or whatever the message asks for, of every table."""
        return self._dump(message, b"")

    def _dump(self, message: int, body: bytes) -> Iterator[memoryview]:
        """The payloads of a dump's answers, behind their nfgenmsg."""
        return self._ask(message, body, _REQUEST | _DUMP)

    def _ask(
        self, message: int, body: bytes, request: int, *, torn: bool = False, answers: int = 1
    ) -> Iterator[memoryview]:
        """``torn`` takes the answers also of a dump during which something was changed; of what
        is no dump there are ``answers``."""
        self._sequence += 1
        general = struct.pack("=BBH", self._family, 0, 0)
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
                if flags & _INTERRUPTED and not torn:
                    raise InterruptedDumpError
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    raise OSError(code, os.strerror(code))
                yield payload[4:]
                answers -= 1
                if not request & _DUMP and not answers:
                    return

    def has_table(self, table: str) -> bool:
        """Whether the netdev family holds the table."""
        # Read to the end: a dump that is left half-way would show in the next one.
        names = [text_of(attributes(data).get(1)) for data in self._dump(_GET_TABLE, b"")]
        return table in names

    def sets(self, table: str) -> list[str]:
        """The names of the table's sets and maps; anonymous ones are left out."""
        names = []
        for data in self._dump(_GET_SET, string_attribute(1, table)):
            found = attributes(data)
            flags = int.from_bytes(found[3], "big") if 3 in found else 0
            if not flags & 0x1 and text_of(found.get(1)) == table:
                names.append(text_of(found.get(2)))
        return names

    def counters(self, table: str) -> dict[str, Count]:
        """The table's named counters."""
        found: dict[str, Count] = {}
        for data in self._dump(_GET_OBJECT, string_attribute(1, table)):
            entry = attributes(data)
            if text_of(entry.get(1)) == table and int.from_bytes(entry[3], "big") == 1:
                found[text_of(entry.get(2))] = _count(entry[4])
        return found

    def chains(self, table: str) -> dict[str, str]:
        """The table's chains, with the device of a base chain or nothing."""
        found: dict[str, str] = {}
        for data in self._dump(_GET_CHAIN, b""):
            entry = attributes(data)
            if text_of(entry.get(1)) != table:
                continue
            device = ""
            if 4 in entry:
                hook = attributes(entry[4])
                device = text_of(hook.get(3)) or ",".join(
                    text_of(value) for _, value in attribute_list(hook.get(4, memoryview(b"")))
                )
            found[text_of(entry.get(3))] = device
        return found

    def rule_comments(self, table: str) -> dict[str, list[str]]:
        """The comments of every chain's rules, in order; empty for a rule without one."""
        found: dict[str, list[str]] = {}
        for data in self._dump(_GET_RULE, string_attribute(1, table)):
            entry = attributes(data)
            if text_of(entry.get(1)) == table:
                comment = comment_of(entry[7]) if 7 in entry else ""
                found.setdefault(text_of(entry.get(2)), []).append(comment)
        return found

    def number_pairs(self, table: str, name: str) -> dict[int, int]:
        """The elements of a map from 4-byte numbers to 4-byte numbers, read in bulk.

        Raises ValueError if the map holds anything else.
        """
        pairs: dict[int, int] = {}
        body = string_attribute(1, table) + string_attribute(2, name)
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
        for data in self._dump(_GET_SET, string_attribute(1, table)):
            entry = attributes(data)
            if text_of(entry.get(1)) == table:
                count = entry.get(_SET_COUNT)
                found[text_of(entry.get(2))] = int.from_bytes(count, "big") if count else None
        return found

    def element(self, table: str, name: str, key: bytes) -> RawElement | None:
        """The element with this key, if there is one; costs one look-up, however large the map."""
        value = attribute(1, key)
        element = nested(1, nested(1, value))
        body = string_attribute(1, table) + string_attribute(2, name)
        body += nested(3, element)
        try:
            for data in self._ask(_GET_ELEMENTS, body, _REQUEST):
                listed = attributes(data).get(3)
                for _, found in attribute_list(listed if listed is not None else memoryview(b"")):
                    return _element(attributes(found))
        except FileNotFoundError:
            return None
        return None

    def elements_of(self, table: str, name: str, keys: Sequence[bytes]) -> Iterator[RawElement]:
        """The elements with these keys, up to the first that is not there."""
        where = string_attribute(1, table) + string_attribute(2, name)
        for start in range(0, len(keys), _AT_ONCE):
            part = keys[start : start + _AT_ONCE]
            wanted = b"".join(nested(1, nested(1, attribute(1, key))) for key in part)
            try:
                # One answer for each (nf_tables_getsetelem).
                answers = self._ask(
                    _GET_ELEMENTS, where + nested(3, wanted), _REQUEST, answers=len(part)
                )
                for data in answers:
                    listed = attributes(data).get(3)
                    for _, found in attribute_list(listed if listed is not None else _NOTHING):
                        yield _element(attributes(found))
            except FileNotFoundError:
                return

    def elements(self, table: str, name: str) -> Iterator[RawElement]:
        """The elements of any set or map."""
        body = string_attribute(1, table) + string_attribute(2, name)
        for data in self._dump(_GET_ELEMENTS, body):
            listed = attributes(data).get(3)
            if listed is not None:
                for _, element in attribute_list(listed):
                    yield _element(attributes(element))

    def counts_by_mark(self, table: str, name: str, deadline: float) -> dict[int, int] | None:
        """How many elements of a map that packets fill hold each mark; None when it takes longer.

        ``deadline`` is of time.monotonic. The kernel walks from the start of the map to where
        the last answer ended for each answer of 32 KiB (nft_rhash_walk; about 500 flows), so
        time grows with the square of the entries. It leaves out those whose time is over.
        """
        counted: Counter[int] = Counter()
        body = string_attribute(1, table) + string_attribute(2, name)
        # A change of the rules meanwhile does no harm: it moves no flow in its map.
        for data in self._ask(_GET_ELEMENTS, body, _REQUEST | _DUMP, torn=True):
            elements = attributes(data).get(3)
            if elements:
                counted.update(_marks(elements))
            if time.monotonic() > deadline:
                return None
        return dict(counted)


def _marks(elements: memoryview) -> Iterable[int]:
    """The values of elements that hold marks.

    They are alike in most answers: the first tells where its value is, and the rest is read in
    bulk. Where lengths differ, each is read by itself.
    """
    step = int.from_bytes(elements[:2], sys.byteorder)
    at = _value_at(elements[4:step]) + 4
    if len(elements) % step == 0:
        # Length and type of the element, and of the data and its value in front of the mark.
        form = bytes(elements[:4]), bytes(elements[at - 8 : at])
        layout = struct.Struct(f"=4s{at - 12}x8sI{step - at - 4}x")
        rows = list(layout.iter_unpack(elements))
        if all((head, middle) == form for head, middle, _ in rows):
            return [mark for _, _, mark in rows]
    found = (attributes(element)[2] for _, element in attribute_list(elements))
    return [int.from_bytes(attributes(data)[1], sys.byteorder) for data in found]


def _value_at(element: memoryview) -> int:
    """Where the bytes of an element's value begin."""
    at = 0
    while True:
        length, kind = struct.unpack_from("=HH", element, at)
        if kind & 0x3FFF == 2:
            return at + 8
        at += (length + 3) & ~3


def _element(entry: Attributes) -> RawElement:
    value: bytes | str = b""
    if 2 in entry:
        data = attributes(entry[2])
        value = bytes(data[1]) if 1 in data else text_of(attributes(data[2]).get(2))
    count = None
    if 7 in entry:
        expression = attributes(entry[7])
        if text_of(expression.get(1)) == "counter":
            count = _count(expression[2])
    return RawElement(
        key=bytes(attributes(entry[1])[1]) if 1 in entry else b"",
        data=value,
        key_end=bytes(attributes(entry[10])[1]) if 10 in entry else b"",
        comment=comment_of(entry[6]) if 6 in entry else "",
        count=count,
    )


def _count(data: memoryview) -> Count:
    """NFTA_COUNTER_BYTES and NFTA_COUNTER_PACKETS, both 64 bits in network order."""
    entry = attributes(data)
    return Count(int.from_bytes(entry[2], "big"), int.from_bytes(entry[1], "big"))
