"""Reads nf_tables over netlink.

nft loads every element of every set before it lists anything (1.0.6), which takes half a second
with a large table; this asks for no more than it needs. Message and attribute numbers are
from include/uapi/linux/netfilter/nf_tables.h. nft_writer.py and nft write.
"""

from __future__ import annotations

import struct
import sys
import time
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from types import TracebackType

from tula.dataplane.nft.codec import RawElement
from tula.dataplane.nft.definition import COMPARED, MAP, Definition, split_types
from tula.dataplane.nft.ruleset import Chain
from tula.dataplane.nft.transaction import PRIORITY
from tula.kernel.netlink import (
    NETFILTER,
    Attributes,
    NetlinkSocket,
    attribute,
    attribute_list,
    attributes,
    comment_of,
    nested,
    string_attribute,
    text_of,
)
from tula.model.stats import Count

_SUBSYSTEM = 10 << 8
_GET_TABLE, _GET_CHAIN, _GET_RULE, _GET_SET, _GET_ELEMENTS, _GET_OBJECT = 1, 4, 7, 10, 13, 19
NETDEV = 5
_SET_ANONYMOUS, _SET_COUNT = 0x1, 20
_COUNTER = 1
"""NFT_OBJECT_COUNTER."""
_INGRESS, _ACCEPT, _OFFLOAD = 0, 1, 0x2
"""NF_NETDEV_INGRESS, NF_ACCEPT, NFT_CHAIN_HW_OFFLOAD."""
_GOTO = struct.pack("!i", -4)
"""NFT_GOTO."""
_NOTHING = memoryview(b"")
_AT_ONCE = 64
"""Elements that one message asks for: their answers must fit into the socket's buffer."""


class NftReader:
    """A netlink socket in the network namespace of the thread that made it.

    Raises OSError as the kernel refuses, and InterruptedDumpError.
    """

    def __init__(self, family: int = NETDEV) -> None:
        self._general = struct.pack("=BBH", family, 0, 0)
        self._netlink = NetlinkSocket(NETFILTER)

    def __enter__(self) -> NftReader:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._netlink.close()

    def dump(self, message: int) -> Iterator[memoryview]:
        """All of the family's chains, rules or whatever the message asks for, of every table."""
        return self._dump(message, b"")

    def _dump(self, message: int, body: bytes, *, torn: bool = False) -> Iterator[memoryview]:
        """The bodies of a dump's answers, behind their nfgenmsg."""
        kind, request = _SUBSYSTEM | message, self._general + body
        return (answer[4:] for answer in self._netlink.dump(kind, request, torn=torn))

    def _ask(self, message: int, body: bytes, count: int = 1) -> Iterator[memoryview]:
        kind, request = _SUBSYSTEM | message, self._general + body
        return (answer[4:] for answer in self._netlink.ask(kind, request, count))

    def has_table(self, table: str) -> bool:
        """Whether the netdev family holds the table."""
        # Read to the end: the socket takes no other dump before.
        names = [text_of(attributes(data).get(1)) for data in self._dump(_GET_TABLE, b"")]
        return table in names

    def maps(self, table: str) -> dict[str, Definition]:
        """The table's sets and maps, and what they are; anonymous ones are left out."""
        found: dict[str, Definition] = {}
        for data in self._dump(_GET_SET, string_attribute(1, table)):
            entry = attributes(data)
            if text_of(entry.get(1)) == table and not _number(entry.get(3)) & _SET_ANONYMOUS:
                found[text_of(entry.get(2))] = _definition(entry)
        return found

    def counters(self, table: str) -> dict[str, Count]:
        """The table's named counters."""
        return self.objects(table)[0]

    def objects(self, table: str) -> tuple[dict[str, Count], set[tuple[int, str]]]:
        """The table's named counters, and its other named objects: NFT_OBJECT_* and name."""
        counters: dict[str, Count] = {}
        others: set[tuple[int, str]] = set()
        for data in self._dump(_GET_OBJECT, string_attribute(1, table)):
            entry = attributes(data)
            if text_of(entry.get(1)) != table:
                continue
            kind, name = _number(entry.get(3)), text_of(entry.get(2))
            if kind == _COUNTER:
                counters[name] = _count(entry[4])
            else:
                others.add((kind, name))
        return counters, others

    def is_dormant(self, table: str) -> bool:
        """Whether the table's flag keeps packets from its chains (NFT_TABLE_F_DORMANT)."""
        entries = [attributes(data) for data in self._dump(_GET_TABLE, b"")]
        flags = (_number(entry.get(2)) for entry in entries if text_of(entry.get(1)) == table)
        return any(number & 1 for number in flags)

    def chains(self, table: str) -> dict[str, Chain]:
        """The table's chains without their rules."""
        found: dict[str, Chain] = {}
        for data in self._dump(_GET_CHAIN, b""):
            entry = attributes(data)
            if text_of(entry.get(1)) == table:
                found[text_of(entry.get(3))] = _chain(entry)
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
        # To the end before anything is refused: the socket takes no other dump before.
        for data in list(self._dump(_GET_ELEMENTS, body)):
            elements = attributes(data).get(3)
            if not elements:
                continue
            if len(elements) % layout.size or elements[:2] != struct.pack("=H", layout.size):
                raise ValueError(f"{name} holds elements that are no pairs of numbers")
            pairs.update(layout.iter_unpack(elements))
        return pairs

    def entries(self, table: str) -> dict[str, int | None]:
        """How many elements each map has; None where the kernel does not say (Linux < 6.18)."""
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
            for data in self._ask(_GET_ELEMENTS, body):
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
                answers = self._ask(_GET_ELEMENTS, where + nested(3, wanted), len(part))
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

    def entries_held(self, table: str, name: str) -> Iterator[RawElement]:
        """The entries of a map that packets fill; whoever ends it early must close the reader."""
        body = string_attribute(1, table) + string_attribute(2, name)
        for data in self._dump(_GET_ELEMENTS, body, torn=True):
            for _, element in attribute_list(attributes(data).get(3) or _NOTHING):
                yield _element(attributes(element))

    def element_answers(self, table: str, name: str) -> Iterator[Attributes]:
        """The answers that tell all elements of a set or map, undecoded."""
        body = string_attribute(1, table) + string_attribute(2, name)
        return (attributes(data) for data in self._dump(_GET_ELEMENTS, body))

    def marks_held(self, table: str, name: str, deadline: float) -> dict[int, int] | None:
        """How many elements of a map that packets fill hold each mark; None when it takes longer.

        ``deadline`` is of time.monotonic. The kernel walks from the start of the map to where
        the last answer ended for each answer of 32 KiB (nft_rhash_walk; about 500 flows), so
        time grows with the square of the entries. It leaves out those that have timed out.
        """
        counted: Counter[int] = Counter()
        body = string_attribute(1, table) + string_attribute(2, name)
        # A change of the rules meanwhile does no harm: it moves no flow in its map.
        for data in self._dump(_GET_ELEMENTS, body, torn=True):
            elements = attributes(data).get(3)
            if elements:
                counted.update(_marks(elements))
            if time.monotonic() > deadline:
                return None
        return dict(counted)

    def marks_found(
        self, table: str, name: str, wanted: Collection[int], deadline: float
    ) -> set[int]:
        """Which of these marks a map that packets fill holds, as far as it can be walked until
        ``deadline``; ends when all are found."""
        left = set(wanted)
        body = string_attribute(1, table) + string_attribute(2, name)
        for data in self._dump(_GET_ELEMENTS, body, torn=True) if left else ():
            elements = attributes(data).get(3)
            if elements:
                left.difference_update(_marks(elements))
            if not left or time.monotonic() > deadline:
                break
        return set(wanted) - left


def _marks(elements: memoryview) -> Iterable[int]:
    """The values of elements that hold marks.

    In most answers they all have the same layout: the first shows where the value is, and the rest
    is read in bulk. Where lengths differ, each is decoded by itself.
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
        value = bytes(data[1]) if 1 in data else _goto_chain(attributes(data[2]))
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
        seconds=_number(entry[5]) / 1000 if 5 in entry else None,
    )


def _goto_chain(verdict: Attributes) -> str:
    """The chain of a "goto"; empty for other verdicts."""
    return text_of(verdict.get(2)) if verdict[1] == _GOTO else ""


def _definition(entry: Attributes) -> Definition:
    """NFTA_SET_*."""
    flags = _number(entry.get(3)) & COMPARED
    size = _number(attributes(entry[9]).get(1)) if 9 in entry else 0
    expressions = [attributes(entry[17])] if 17 in entry else []
    if 18 in entry:  # several at once
        expressions += [attributes(each) for _, each in attribute_list(entry[18])]
    names = [text_of(each.get(1)) for each in expressions]
    known = {11: "timeout", 12: "gc-interval", 15: "object type"}
    others = [word for kind, word in known.items() if _number(entry.get(kind))]
    others += [name for name in names[1:] or names if name != "counter"]
    return Definition(
        flags,
        _number(entry.get(5)),
        _number(entry.get(7)) if flags & MAP else 0,
        size,
        names[:1] == ["counter"],
        split_types(_number(entry.get(4))),
        split_types(_number(entry.get(6))) if flags & MAP else (),
        ", ".join(others),
    )


def _chain(entry: Attributes) -> Chain:
    """NFTA_CHAIN_*; a base chain has a hook."""
    if 4 not in entry:
        return Chain()
    hook = attributes(entry[4])
    device = text_of(hook.get(3)) or ",".join(
        text_of(value) for _, value in attribute_list(hook.get(4, _NOTHING))
    )
    number, priority = _number(hook.get(1)), struct.unpack("!i", hook[2])[0]
    odd = {
        f"hook {number}": number != _INGRESS,
        f"priority {priority}": priority != PRIORITY,
        "policy drop": _number(entry.get(5)) != _ACCEPT,
        "offload": bool(_number(entry.get(10)) & _OFFLOAD),
        "no device": not device,
    }
    return Chain((), device, ", ".join(word for word, so in odd.items() if so))


def _number(data: memoryview | None) -> int:
    """A number in network order; 0 for one that is not there."""
    return int.from_bytes(data, "big") if data is not None else 0


def _count(data: memoryview) -> Count:
    """NFTA_COUNTER_BYTES and NFTA_COUNTER_PACKETS, both 64 bits in network order."""
    entry = attributes(data)
    return Count(int.from_bytes(entry[2], "big"), int.from_bytes(entry[1], "big"))
