"""Sends requests to many machines at once and collects the replies."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from tula.doctor import packets
from tula.doctor.adverts import Advert
from tula.doctor.replies import (
    AddressClaim,
    Reply,
    ReplyKind,
    addresses_of,
    parse_arp,
    parse_ip,
)
from tula.kernel.packet_sockets import ARP, IPV4, IPV6, PacketSockets, ReceivedPacket
from tula.model.config import IPAddress, Tunnel, TunnelSettings

_BROADCAST = b"\xff" * 6
_SEND_TIMES = (0.0, 0.25, 0.6)
"""When requests without a reply are sent (again), as fractions of the patience."""
_TRANSIENT = {errno.EAGAIN, errno.ENOBUFS}
"""A queue is full: the next attempt may succeed."""
_BURST = 64
"""Packets sent between two reads of what arrived."""


@dataclass(frozen=True, slots=True)
class L2Path:
    """Straight to a MAC address, as forwarding l2 sends."""

    interface: str
    mac: bytes


@dataclass(frozen=True, slots=True)
class TunnelPath:
    """Through a tunnel, as forwarding l3 sends; ``mac`` is the inner destination for VXLAN."""

    tunnel: Tunnel
    local: IPAddress
    remote: IPAddress
    mac: bytes = b""


Path = L2Path | TunnelPath | None
"""None: by the machine's own routes."""


@dataclass(frozen=True, slots=True)
class Request:
    """One packet that asks for a reply. ``awaited``: no reply means something, so it is sent
    again and waited for. ``ttl``: a datagram's hop limit, an ordinary one if it is 0."""

    kind: str
    source: IPAddress
    destination: IPAddress
    path: Path = None
    port: int = 0
    size: int = 0
    payload: bytes = b""
    ttl: int = 0
    awaited: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class NeighbourRequest:
    """ARP or neighbour discovery for an address, from an interface with this MAC."""

    interface: str
    mac: bytes
    source: IPAddress
    target: IPAddress
    awaited: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class TransitPacket:
    """A packet from a VIP that arrived here though it is addressed to somebody else."""

    interface: str
    mac: bytes
    source: IPAddress
    destination: IPAddress


MacTable = dict[tuple[str, IPAddress], set[bytes]]
"""The MACs that claimed an address, by interface and address."""


@dataclass(slots=True)
class Responses:
    """Everything that was received."""

    replies: dict[Request, list[Reply]] = field(default_factory=dict)
    macs: MacTable = field(default_factory=dict)
    """From ARP replies and neighbour advertisements."""
    arp_senders: MacTable = field(default_factory=dict)
    """From the sender fields of other machines' own ARP requests."""
    transit: set[TransitPacket] = field(default_factory=set)
    send_errors: dict[Request, OSError] = field(default_factory=dict)
    """Requests that this machine itself did not send."""
    adverts: list[Advert] = field(default_factory=list)
    """VRRP's, in the order in which they passed."""

    def to(self, request: Request) -> list[Reply]:
        """The replies to a request, the first one first."""
        return self.replies.get(request, [])


class Exchange:
    """Requests and replies over the same sockets."""

    def __init__(
        self,
        sockets: PacketSockets,
        settings: TunnelSettings,
        own: Collection[IPAddress],
        patience: float,
    ) -> None:
        """``own`` are this machine's addresses; ``patience`` is how many seconds to wait for
        replies."""
        self.responses = Responses()
        self.started = time.monotonic()
        self._sockets = sockets
        self._settings = settings
        self._own = frozenset(own)
        self._patience = patience
        self._first = random.randrange(packets.PORTS)  # not the number of the previous run
        self._numbers: dict[Request, int] = {}
        self._sent: dict[int, Request] = {}
        self._waiting: set[Request] = set()
        self._unresolved: set[tuple[str, IPAddress]] = set()

    def send(
        self, requests: Iterable[Request], neighbours: Iterable[NeighbourRequest] = ()
    ) -> None:
        """Sends, and repeats what is not answered, until every awaited reply is here or the
        patience is over."""
        wanted = [request for request in dict.fromkeys(requests) if self._number(request)]
        asked = list(dict.fromkeys(neighbours))
        self._waiting = {r for r in wanted if r.awaited and not self._is_answered(r)}
        self._unresolved = {
            (n.interface, n.target) for n in asked if n.awaited and not self._is_resolved(n)
        }
        start = time.monotonic()
        for at in _SEND_TIMES:
            self._receive_until(start + at * self._patience)
            if at and not (self._waiting or self._unresolved):
                return
            open_requests = (request for request in wanted if not self._is_answered(request))
            self._send(open_requests, [each for each in asked if not self._is_resolved(each)])
        self._receive_until(start + self._patience)

    def listen(self, seconds: float) -> None:
        """Receives until at least so many seconds after the start."""
        while (left := self.started + seconds - time.monotonic()) > 0:
            self._take(self._sockets.receive(left))

    def _number(self, request: Request) -> bool:
        """Gives the request a number of its own; False when there are none left."""
        if request not in self._numbers:
            count = len(self._numbers) + 1
            if count >= packets.PORTS:
                return False
            number = (self._first + count) % packets.PORTS
            self._numbers[request] = number
            self._sent[number] = request
        return True

    def _receive_until(self, end: float) -> None:
        while self._waiting or self._unresolved:
            left = end - time.monotonic()
            if left <= 0:
                return
            self._take(self._sockets.receive(left))

    def _is_answered(self, request: Request) -> bool:
        return request in self.responses.replies or request in self.responses.send_errors

    def _is_resolved(self, request: NeighbourRequest) -> bool:
        return (request.interface, request.target) in self.responses.macs

    def _send(self, requests: Iterable[Request], neighbours: Iterable[NeighbourRequest]) -> None:
        for each in neighbours:
            self._send_neighbour_request(each)
        for count, request in enumerate(requests, 1):
            number = self._numbers[request]
            try:
                self._transmit(self._packet(request, number), request, number)
            except OSError as error:
                if error.errno not in _TRANSIENT:
                    self.responses.send_errors[request] = error
                    self._waiting.discard(request)
            if count % _BURST == 0:
                self._take(self._sockets.receive(0.002))

    def _send_neighbour_request(self, each: NeighbourRequest) -> None:
        with suppress(OSError):  # the interface is down, which another check reports
            if each.target.version == 4:
                request = packets.arp_request(each.mac, each.source, each.target)
                self._sockets.send_link(each.interface, _BROADCAST, ARP, request)
            else:
                request = packets.solicitation(each.mac, each.source, each.target)
                group = b"\x33\x33" + packets.solicited_node(each.target).packed[-4:]
                self._sockets.send_link(each.interface, group, IPV6, request)

    def _transmit(self, packet: bytes, request: Request, number: int) -> None:
        path = request.path
        if isinstance(path, L2Path):
            protocol = IPV4 if packet[0] >> 4 == 4 else IPV6
            self._sockets.send_link(path.interface, path.mac, protocol, packet)
        elif isinstance(path, TunnelPath):
            ends = (path.local, path.remote, path.mac)
            outer = packets.encapsulated(packet, path.tunnel, *ends, self._settings, number)
            self._sockets.send_routed(outer, path.remote)
        else:
            self._sockets.send_routed(packet, request.destination)

    @staticmethod
    def _packet(request: Request, number: int) -> bytes:
        source, destination = request.source, request.destination
        if request.kind == packets.TCP:
            return packets.syn(source, destination, request.port, number)
        if request.kind == packets.UDP:
            ends = (source, destination, request.port)
            return packets.datagram(*ends, request.payload, number, request.ttl)
        return packets.echo(source, destination, number, request.size)

    def _take(self, heard: Iterable[ReceivedPacket]) -> None:
        for each in heard:
            found = parse_arp(each.data) if each.protocol == ARP else parse_ip(each.data, each.mac)
            if isinstance(found, AddressClaim):
                place = (each.interface, found.address)
                if found.from_request:
                    self.responses.arp_senders.setdefault(place, set()).add(found.mac)
                else:
                    self.responses.macs.setdefault(place, set()).add(found.mac)
                    self._unresolved.discard(place)
            elif each.protocol != ARP and not self._is_transit(each) and isinstance(found, Reply):
                self._take_reply(found)

    def _take_reply(self, reply: Reply) -> None:
        request = self._sent.get(reply.number)
        if request is None or not _is_reply_to(request, reply):
            return
        self._waiting.discard(request)
        known = self.responses.replies.setdefault(request, [])
        if reply not in known:
            known.append(reply)
        if reply.kind is ReplyKind.OPEN and request.kind == packets.TCP:
            self._reset(request, reply.number)

    def _reset(self, request: Request, number: int) -> None:
        """Ends a half-open connection. The kernel would too, unless it drops replies whose source
        is its own VIP."""
        rst = packets.rst(request.source, request.destination, request.port, number)
        with suppress(OSError):  # otherwise the connection times out
            self._transmit(rst, request, number)

    def _is_transit(self, each: ReceivedPacket) -> bool:
        """Whether it is for another machine: a reply to a client. Remembers those sent to this
        machine's MAC."""
        ends = addresses_of(each.data)
        if ends is None or ends[1] in self._own or ends[1].is_multicast:
            return False
        if each.to_us and each.interface != "lo":
            self.responses.transit.add(TransitPacket(each.interface, each.mac, *ends))
        return True


def _is_reply_to(request: Request, reply: Reply) -> bool:
    """Numbers repeat, and others send from such ports too, so the rest has to fit as well."""
    if reply.kind is ReplyKind.ERROR:
        path = request.path
        outer = path.remote if isinstance(path, TunnelPath) else None
        return reply.quoted in (request.destination, outer)
    kinds = {packets.TCP: (ReplyKind.OPEN, ReplyKind.CLOSED), packets.UDP: (ReplyKind.OPEN,)}
    if reply.kind not in kinds.get(request.kind, (ReplyKind.ECHO,)):
        return False
    # A server that answers UDP from another address of its own is a problem to be reported.
    return reply.source == request.destination or request.kind == packets.UDP
