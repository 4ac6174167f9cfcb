"""What the daemon and its gateway tell each other, one JSON object a message. Few imports: the
gateway's process has this too.

Listening sockets go beside an order, as descriptors: those of ``new``, in this order.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from dataclasses import asdict, dataclass

LARGEST = 1 << 16
"""Bytes of a message."""
MOST_LISTENERS = 64
"""Of all kinds: their descriptors fit into one message (unix(7): 253)."""
API, METRICS = "api", "metrics"


@dataclass(frozen=True, slots=True)
class Listener:
    """One address to answer at: the whole API, or metrics alone; ``tls``, or plain HTTP."""

    endpoint: str
    kind: str
    tls: bool


@dataclass(frozen=True, slots=True)
class Order:
    """All that the gateway is to do from now on; what is not in it ends."""

    listeners: tuple[Listener, ...] = ()
    new: tuple[str, ...] = ()
    """the endpoints whose sockets come with this message"""
    socket: str = ""
    """the daemon's"""
    state_dir: str = ""
    certificate: str = ""
    key: str = ""
    """files; empty where nothing is TLS"""


@dataclass(frozen=True, slots=True)
class Report:
    """How the gateway stands: what it cannot do, and the certificate that it shows."""

    problems: tuple[str, ...] = ()
    fingerprint: str = ""


def send_order(channel: socket.socket, order: Order, sockets: Sequence[socket.socket]) -> None:
    """Raises OSError."""
    text = json.dumps(asdict(order)).encode()
    socket.send_fds(channel, [text], [each.fileno() for each in sockets])


def receive_order(channel: socket.socket) -> tuple[Order, list[int]] | None:
    """The order and the descriptors with it; None when the daemon has gone. Raises OSError."""
    text, found, _flags, _address = socket.recv_fds(channel, LARGEST, MOST_LISTENERS)
    if not text:
        return None
    values = json.loads(text)
    listeners = tuple(Listener(**each) for each in values.pop("listeners"))
    return Order(**{**values, "listeners": listeners, "new": tuple(values["new"])}), found


def encode_report(report: Report) -> bytes:
    """One message."""
    return json.dumps(asdict(report)).encode()[:LARGEST]


def decode_report(text: bytes) -> Report:
    """What ``encode_report`` made. Raises ValueError and TypeError for anything else."""
    values = json.loads(text)
    return Report(tuple(map(str, values["problems"])), str(values["fingerprint"]))
