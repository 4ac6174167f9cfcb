"""Changes elements of Tula's maps, and removes what is unused, over netlink in one batch.

Health changes only elements, and starting nft takes 20 ms where this takes less than one. The
batch is one message to the kernel, which makes all of it or nothing (nfnetlink.c,
nfnetlink_rcv_batch). Numbers are from include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h;
the bytes are those that nft 1.0.6 sends: the contract suite compares the results.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from typing import cast

from tula.dataplane.nft.codec import RawElement, encode_element, encode_key
from tula.dataplane.nft.ruleset import TABLE, Elements, Key, MapName
from tula.dataplane.nft.transaction import (
    AddElements,
    DeleteChain,
    DeleteCounter,
    DeleteElements,
    DeleteMap,
    DeleteObject,
    FlushMap,
    Step,
    Transaction,
)
from tula.kernel.netlink import (
    ACK,
    CREATE,
    NETFILTER,
    REQUEST,
    NetlinkSocket,
    attribute,
    attributes,
    comment_data,
    error_of,
    nested,
    pack_message,
    string_attribute,
)

_SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEW_ELEMENTS, _DELETE_ELEMENTS = _SUBSYSTEM << 8 | 12, _SUBSYSTEM << 8 | 14
_DELETE_CHAIN, _DELETE_MAP, _DELETE_OBJECT = (_SUBSYSTEM << 8 | kind for kind in (5, 11, 20))
_COUNTER = 1
"""NFT_OBJECT_COUNTER."""
_GET_GENERATION = _SUBSYSTEM << 8 | 16
_FAMILY_NETDEV = 5
_BATCH_GENERATION = 1
_GOTO = struct.pack(">i", -4)
"""NFT_GOTO."""
_SOL_NETLINK, _CAP_ACK = 270, 10
_SO_SNDBUFFORCE = 32
_ERESTART = 85
_LIST_LIMIT = 65000
"""A nested attribute's length is 16 bits wide: more elements go in several messages."""

# Element, key, its value; data, its value: each attribute is (length, type).
_PAIR = struct.Struct("=12sI8sI")
_PAIR_HEAD = struct.pack("=6H", 28, 0x8001, 12, 0x8001, 8, 1)
_PAIR_DATA = struct.pack("=4H", 12, 0x8002, 8, 1)
_MEMBER = struct.Struct("=12sI")
_MEMBER_HEAD = struct.pack("=6H", 16, 0x8001, 12, 0x8001, 8, 1)


class RefusedError(Exception):
    """The kernel refused the batch: nothing of it was done.

    ``code`` is an errno; ``what`` names the step, and is empty when it was not about a step.
    """

    def __init__(self, code: int, what: str = "") -> None:
        reason = os.strerror(code)
        super().__init__(f"{what}: {reason}" if what else reason)
        self.code = code

    @property
    def stale(self) -> bool:
        """Whether the generation is another than the batch was made for."""
        return self.code == _ERESTART


def fits_batch(transaction: Transaction) -> bool:
    """Whether ``NftWriter`` can make this transaction: it changes elements, and removes."""
    return all(map(_fits, transaction))


def _fits(step: Step) -> bool:
    match step:
        case AddElements(name, _, counts):
            return not counts and not name.kind.dynamic
        case DeleteElements(name):
            return not name.kind.dynamic
        case FlushMap() | DeleteMap() | DeleteChain() | DeleteCounter() | DeleteObject():
            return True
        case _:
            return False


class NftWriter:
    """Sends batches from one socket that stays open, in the calling thread's network namespace.

    It stays open, because closing one waits until the kernel has freed what the last commit deleted
    (nft_rcv_nl_event waits for an RCU grace period: 8 to 16 ms, Linux 6.18). One thread at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._netlink: NetlinkSocket | None = None
        self._namespace = (0, 0)

    def send(self, transaction: Transaction, generation: int = 0) -> None:
        """Makes all of the steps, or none and raises RefusedError.

        ``generation`` 0 stands for any. Raises OSError when there is no netlink.
        """
        planned = [(step, message) for step in transaction for message in _messages(step)]
        if not planned:
            return
        messages = []
        for position, (_, (kind, flags, body)) in enumerate(planned, 1):
            # The kernel processes the batch in order: an answer to the last one is about all.
            ack = ACK if position == len(planned) else 0
            messages.append(_message(kind, flags | ack, position, _FAMILY_NETDEV, 0, body))
        begin = attribute(_BATCH_GENERATION, struct.pack(">I", generation)) if generation else b""
        batch = b"".join(
            (
                _message(_BATCH_BEGIN, 0, 0, 0, _SUBSYSTEM, begin),
                *messages,
                _message(_BATCH_END, 0, len(messages) + 1, 0, _SUBSYSTEM, b""),
            )
        )
        with self._lock:
            answers = [*self._ask(batch)]
        _check(answers, [step for step, _ in planned])

    def generation(self) -> int:
        """The number of the last commit of this namespace, in any table. Raises OSError."""
        with self._lock:
            netlink = self._here()
            netlink.forget()
            answers = netlink.ask(_GET_GENERATION, _general(0, 0))
            return int.from_bytes(attributes(next(answers)[4:])[1], "big")

    def _ask(self, batch: bytes) -> Iterator[tuple[int, int]]:
        """The (position, errno) of each answer; errno 0 for an acknowledgement."""
        netlink = self._here()
        netlink.forget()
        # A message larger than the send buffer is refused (netlink_sendmsg). The kernel doubles
        # what it is told (sock.c), for its own overhead.
        netlink.socket.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, len(batch))
        netlink.socket.send(batch)
        # The kernel has processed the batch by now: all answers are there.
        for kind, _, sequence, body in netlink.waiting():
            code = error_of(kind, body)
            if code is not None:
                yield sequence, code

    def _here(self) -> NetlinkSocket:
        """The socket of this namespace, which it keeps alive: its inode cannot be another's."""
        status = os.stat("/proc/thread-self/ns/net")  # noqa: PTH116 (a Path takes as long again)
        namespace = (status.st_dev, status.st_ino)
        if self._netlink is not None and namespace != self._namespace:
            self._netlink.close()
            self._netlink = None
        if self._netlink is None:
            self._netlink, self._namespace = NetlinkSocket(NETFILTER), namespace
            # An error would bring back the whole message that it is about.
            self._netlink.socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        return self._netlink


def _check(answers: Iterable[tuple[int, int]], steps: list[Step]) -> None:
    """Raises for the first refusal; position 0 is the batch as a whole."""
    done = False
    for position, code in answers:
        if code:
            what = _describe(steps[position - 1]) if 0 < position <= len(steps) else ""
            raise RefusedError(code, what)
        done = done or position == len(steps)
    if not done:
        raise RefusedError(errno.EPROTO)


def _message(
    kind: int, flags: int, sequence: int, family: int, resource: int, body: bytes
) -> bytes:
    return pack_message(kind, _general(family, resource) + body, REQUEST | flags, sequence)


def _general(family: int, resource: int) -> bytes:
    """struct nfgenmsg."""
    return struct.pack(">BBH", family, 0, resource)


def _messages(step: Step) -> Iterator[tuple[int, int, bytes]]:
    """(type, flags, body) of a step's messages."""
    match step:
        case AddElements(name, elements):
            for part in _parts(_added(name, elements)):
                yield _NEW_ELEMENTS, CREATE, _where(name) + nested(3, part)
        case DeleteElements(name, keys):
            for part in _parts(_deleted(name, keys)):
                yield _DELETE_ELEMENTS, 0, _where(name) + nested(3, part)
        case FlushMap(name):
            # Without a list the kernel deletes all (nf_tables_delsetelem).
            yield _DELETE_ELEMENTS, 0, _where(name)
        case DeleteMap(map_name):
            yield _DELETE_MAP, 0, _where(map_name)
        case DeleteChain(chain):
            yield _DELETE_CHAIN, 0, string_attribute(1, TABLE) + string_attribute(3, chain)
        case DeleteCounter(counter):
            yield _DELETE_OBJECT, 0, _object(_COUNTER, counter)
        case DeleteObject(number, name):
            yield _DELETE_OBJECT, 0, _object(number, name)
        case _:
            raise ValueError(f"a batch cannot make {step}")


def _where(name: MapName | str) -> bytes:
    return string_attribute(1, TABLE) + string_attribute(2, str(name))


def _object(number: int, name: str) -> bytes:
    return _where(name) + attribute(3, struct.pack(">I", number))


def _parts(elements: Iterable[bytes]) -> Iterator[bytes]:
    """The elements in as few lists as can hold them."""
    part: list[bytes] = []
    size = 0
    for element in elements:
        if size + len(element) > _LIST_LIMIT:
            yield b"".join(part)
            part, size = [], 0
        part.append(element)
        size += len(element)
    if part:
        yield b"".join(part)


def _added(name: MapName, elements: Elements) -> Iterator[bytes]:
    if name.kind.numbered:  # large maps: the same bytes, in a quarter of the time
        pairs = cast("dict[int, int]", elements)
        return (_PAIR.pack(_PAIR_HEAD, key, _PAIR_DATA, value) for key, value in pairs.items())
    encoded = (encode_element(name.kind, key, value) for key, value in elements.items())
    return (_element(raw, with_data=not name.kind.is_set) for raw in encoded)


def _deleted(name: MapName, keys: Iterable[Key]) -> Iterator[bytes]:
    if name.kind.numbered:
        numbers = cast("Iterable[int]", keys)
        return (_MEMBER.pack(_MEMBER_HEAD, number) for number in numbers)
    encoded = (encode_key(name.kind, key) for key in keys)
    return (_element(RawElement(first, b"", last), with_data=False) for first, last in encoded)


def _element(raw: RawElement, *, with_data: bool) -> bytes:
    parts = nested(1, attribute(1, raw.key))
    if raw.key_end:
        parts += nested(10, attribute(1, raw.key_end))
    if with_data:
        if isinstance(raw.data, str):
            verdict = attribute(1, _GOTO) + string_attribute(2, raw.data)
            parts += nested(2, nested(2, verdict))
        else:
            parts += nested(2, attribute(1, raw.data))
    if raw.comment:
        parts += attribute(6, comment_data(raw.comment))
    return nested(1, parts)


def _describe(step: Step) -> str:
    match step:
        case AddElements(name):
            return f"cannot add elements to {name}"
        case DeleteElements(name):
            return f"cannot delete elements of {name}"
        case FlushMap(name):
            return f"cannot empty {name}"
        case DeleteMap(gone) | DeleteChain(gone) | DeleteCounter(gone) | DeleteObject(_, gone):
            return f"cannot delete {gone}"
        case _:
            return ""
