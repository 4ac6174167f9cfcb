"""A netlink socket for changes of nf_tables: batches of messages that the kernel makes all or none
of (nfnetlink.c, nfnetlink_rcv_batch).

Numbers are from include/uapi/linux/netfilter/nf_tables.h and nfnetlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterable, Iterator, Sequence

from tula.kernel.netlink import (
    ACK,
    NETFILTER,
    REQUEST,
    NetlinkSocket,
    attribute,
    attributes,
    error_of,
    pack_message,
)

SUBSYSTEM = 10
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_GET_GENERATION = SUBSYSTEM << 8 | 16
_BATCH_GENERATION = 1
_SOL_NETLINK, _CAP_ACK = 270, 10
_SO_SNDBUFFORCE = 32
_ERESTART = 85

BatchMessage = tuple[int, int, bytes]
"""The kind (NFT_MSG_*), flags and attributes of one message."""


class RefusedError(Exception):
    """The kernel refused the batch: nothing of it was done.

    ``code`` is an errno; ``position`` counts the messages from 0, and is None when the batch as a
    whole was refused.
    """

    def __init__(self, code: int, position: int | None = None, what: str = "") -> None:
        reason = os.strerror(code)
        super().__init__(f"{what}: {reason}" if what else reason)
        self.code = code
        self.position = position

    @property
    def stale(self) -> bool:
        """Whether the generation is another than the batch was made for."""
        return self.code == _ERESTART


class NftSocket:
    """One socket that stays open, in the network namespace of the thread that uses it.

    It stays open, because closing one waits until the kernel has freed what the last commit deleted
    (nft_rcv_nl_event waits for an RCU grace period: 8 to 16 ms, Linux 6.18). One thread at a time.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._netlink: NetlinkSocket | None = None
        self._namespace = (0, 0)

    def close(self) -> None:
        """May be called twice; the next use opens another one."""
        with self._lock:
            if self._netlink is not None:
                self._netlink.close()
            self._netlink = None

    def send(self, family: int, messages: Sequence[BatchMessage], generation: int = 0) -> None:
        """Makes all of it, or nothing and raises RefusedError.

        ``family`` is NFPROTO_*; ``generation`` 0 stands for any. Raises OSError when there is no
        netlink.
        """
        if not messages:
            return
        packed = []
        for position, (kind, flags, body) in enumerate(messages, 1):
            # The kernel processes the batch in order: an answer to the last one is about all.
            ack = ACK if position == len(messages) else 0
            packed.append(_message(SUBSYSTEM << 8 | kind, flags | ack, position, family, 0, body))
        begin = attribute(_BATCH_GENERATION, struct.pack(">I", generation)) if generation else b""
        batch = b"".join(
            (
                _message(_BATCH_BEGIN, 0, 0, 0, SUBSYSTEM, begin),
                *packed,
                _message(_BATCH_END, 0, len(packed) + 1, 0, SUBSYSTEM, b""),
            )
        )
        with self._lock:
            answers = [*self._ask(batch)]
        _check(answers, len(packed))

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


def _check(answers: Iterable[tuple[int, int]], count: int) -> None:
    """Raises for the first refusal; position 0 is the batch as a whole."""
    done = False
    for position, code in answers:
        if code:
            raise RefusedError(code, position - 1 if 0 < position <= count else None)
        done = done or position == count
    if not done:
        raise RefusedError(errno.EPROTO)


def _message(
    kind: int, flags: int, sequence: int, family: int, resource: int, body: bytes
) -> bytes:
    return pack_message(kind, _general(family, resource) + body, REQUEST | flags, sequence)


def _general(family: int, resource: int) -> bytes:
    """struct nfgenmsg."""
    return struct.pack(">BBH", family, 0, resource)
