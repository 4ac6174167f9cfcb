"""Asks many machines at once, by packets, and keeps what they answer."""

from __future__ import annotations

import errno
import random
import time
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from tula.doctor import packets
from tula.doctor.replies import Owner, Reply, Said, addresses_of, parse_arp, parse_ip
from tula.kernel.wire import ARP, IPV4, IPV6, Heard, Wire
from tula.model.config import IPAddress, Tunnel, TunnelSettings

_BROADCAST = b"\xff" * 6
_TRIES = (0.0, 0.25, 0.6)
"""When what is not answered is asked (again), in parts of the patience."""
_LATER = {errno.EAGAIN, errno.ENOBUFS}
"""What says that a queue is full: the next try may do better."""
_BURST = 64
"""Packets between two looks at what came in."""


@dataclass(frozen=True, slots=True)
class Link:
    """Straight to this MAC, as l2 forwarding does."""

    interface: str
    mac: bytes


@dataclass(frozen=True, slots=True)
class InTunnel:
    """In a tunnel, as l3 forwarding does; ``mac`` is the other end's, for VXLAN."""

    tunnel: Tunnel
    local: IPAddress
    remote: IPAddress
    mac: bytes = b""


Way = Link | InTunnel | None
"""None: by the machine's own routes."""


@dataclass(frozen=True, slots=True)
class Question:
    """One packet to be answered. ``needed``: silence is a sign, and is waited for."""

    what: str
    source: IPAddress
    target: IPAddress
    way: Way = None
    port: int = 0
    size: int = 0
    payload: bytes = b""
    needed: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class WhoHas:
    """ARP or neighbour discovery for an address, on an interface that has this MAC."""

    interface: str
    mac: bytes
    source: IPAddress
    target: IPAddress
    needed: bool = field(default=True, compare=False)


@dataclass(frozen=True, slots=True)
class Passing:
    """A packet from a VIP that came to this machine on its way to somebody else."""

    interface: str
    mac: bytes
    source: IPAddress
    target: IPAddress


@dataclass(slots=True)
class Answers:
    """All that was heard; ``refused`` are questions that the machine itself did not let out."""

    replies: dict[Question, list[Reply]] = field(default_factory=dict)
    owners: dict[tuple[str, IPAddress], set[bytes]] = field(default_factory=dict)
    senders: dict[tuple[str, IPAddress], set[bytes]] = field(default_factory=dict)
    """Who named an address as his in ARP requests of his own."""
    passing: set[Passing] = field(default_factory=set)
    refused: dict[Question, OSError] = field(default_factory=dict)

    def to(self, question: Question) -> list[Reply]:
        """What was answered to a question, the first answer first."""
        return self.replies.get(question, [])


class Talk:
    """One conversation with the network over a wire."""

    def __init__(
        self, wire: Wire, settings: TunnelSettings, own: Collection[IPAddress], patience: float
    ) -> None:
        """``patience``: seconds to wait for those who stay silent."""
        self.answers = Answers()
        self.began = time.monotonic()
        self._wire = wire
        self._settings = settings
        self._own = frozenset(own)
        self._patience = patience
        self._first = random.randrange(packets.PORTS)  # not that of the last run
        self._numbers: dict[Question, int] = {}
        self._asked: dict[int, Question] = {}
        self._waiting: set[Question] = set()
        self._unknown: set[tuple[str, IPAddress]] = set()

    def ask(self, questions: Iterable[Question], who_has: Iterable[WhoHas] = ()) -> None:
        """Asks, and again what stays silent; until all that is needed is answered, or for long
        enough."""
        wanted = [q for q in dict.fromkeys(questions) if self._number(q)]
        asked = list(dict.fromkeys(who_has))
        self._waiting = {q for q in wanted if q.needed and not self._answered(q)}
        self._unknown = {(w.interface, w.target) for w in asked if w.needed and not self._known(w)}
        start = time.monotonic()
        for at in _TRIES:
            self._listen_until(start + at * self._patience)
            if at and not (self._waiting or self._unknown):
                return
            silent = (question for question in wanted if not self._answered(question))
            self._send(silent, [each for each in asked if not self._known(each)])
        self._listen_until(start + self._patience)

    def listen(self, seconds: float) -> None:
        """Hears what comes, for at least so long since the beginning."""
        while (left := self.began + seconds - time.monotonic()) > 0:
            self._take(self._wire.receive(left))

    def _number(self, question: Question) -> int:
        """Its number, from 1 on; 0 when there are no more."""
        if question not in self._numbers:
            count = len(self._numbers) + 1
            if count >= packets.PORTS:
                return 0
            number = (self._first + count) % packets.PORTS
            self._numbers[question] = number
            self._asked[number] = question
            return count
        return 1

    def _listen_until(self, end: float) -> None:
        while self._waiting or self._unknown:
            left = end - time.monotonic()
            if left <= 0:
                return
            self._take(self._wire.receive(left))

    def _answered(self, question: Question) -> bool:
        return question in self.answers.replies or question in self.answers.refused

    def _known(self, asked: WhoHas) -> bool:
        return (asked.interface, asked.target) in self.answers.owners

    def _send(self, questions: Iterable[Question], who_has: Iterable[WhoHas]) -> None:
        for each in who_has:
            self._send_who_has(each)
        for count, question in enumerate(questions, 1):
            number = self._numbers[question]
            try:
                self._deliver(self._packet(question, number), question, number)
            except OSError as error:
                if error.errno not in _LATER:
                    self.answers.refused[question] = error
                    self._waiting.discard(question)
            if count % _BURST == 0:
                self._take(self._wire.receive(0.002))

    def _send_who_has(self, each: WhoHas) -> None:
        with suppress(OSError):  # the interface is down, which another check tells
            if each.target.version == 4:
                request = packets.arp_request(each.mac, each.source, each.target)
                self._wire.send_link(each.interface, _BROADCAST, ARP, request)
            else:
                request = packets.solicitation(each.mac, each.source, each.target)
                group = b"\x33\x33" + packets.solicited_node(each.target).packed[-4:]
                self._wire.send_link(each.interface, group, IPV6, request)

    def _deliver(self, packet: bytes, question: Question, number: int) -> None:
        way = question.way
        if isinstance(way, Link):
            protocol = IPV4 if packet[0] >> 4 == 4 else IPV6
            self._wire.send_link(way.interface, way.mac, protocol, packet)
        elif isinstance(way, InTunnel):
            ends = (way.local, way.remote, way.mac)
            outer = packets.encapsulated(packet, way.tunnel, *ends, self._settings, number)
            self._wire.send_routed(outer, way.remote)
        else:
            self._wire.send_routed(packet, question.target)

    @staticmethod
    def _packet(question: Question, number: int) -> bytes:
        source, target = question.source, question.target
        if question.what == packets.TCP:
            return packets.syn(source, target, question.port, number)
        if question.what == packets.UDP:
            return packets.datagram(source, target, question.port, question.payload, number)
        return packets.echo(source, target, number, question.size)

    def _take(self, heard: Iterable[Heard]) -> None:
        for each in heard:
            found = parse_arp(each.data) if each.protocol == ARP else parse_ip(each.data, each.mac)
            if isinstance(found, Owner) and found.unasked:
                self.answers.senders.setdefault((each.interface, found.address), set()).add(
                    found.mac
                )
            elif isinstance(found, Owner):
                place = (each.interface, found.address)
                self.answers.owners.setdefault(place, set()).add(found.mac)
                self._unknown.discard(place)
            elif each.protocol != ARP and not self._passes(each) and isinstance(found, Reply):
                self._take_reply(found)

    def _take_reply(self, reply: Reply) -> None:
        question = self._asked.get(reply.number)
        if question is None or not _fits(question, reply):
            return
        self._waiting.discard(question)
        known = self.answers.replies.setdefault(question, [])
        if reply not in known:
            known.append(reply)
        if reply.said is Said.ACCEPTS and question.what == packets.TCP:
            self._hang_up(question, reply.number)

    def _hang_up(self, question: Question, number: int) -> None:
        """The kernel would say so too, unless it drops answers that come from its own VIP."""
        end = packets.rst(question.source, question.target, question.port, number)
        with suppress(OSError):  # it ends by itself, too
            self._deliver(end, question, number)

    def _passes(self, each: Heard) -> bool:
        """Whether it is on its way to somebody else: an answer to a client."""
        ends = addresses_of(each.data)
        if ends is None or ends[1] in self._own or ends[1].is_multicast:
            return False
        if each.to_us and each.interface != "lo":
            self.answers.passing.add(Passing(each.interface, each.mac, *ends))
        return True


def _fits(question: Question, reply: Reply) -> bool:
    """Whether the answer can be to this: numbers repeat, and others send from such ports too."""
    if reply.said is Said.ERROR:
        way = question.way
        outer = way.remote if isinstance(way, InTunnel) else None
        return reply.quoted in (question.target, outer)
    kind = {packets.TCP: (Said.ACCEPTS, Said.REFUSES), packets.UDP: (Said.ACCEPTS,)}
    if reply.said not in kind.get(question.what, (Said.ECHO,)):
        return False
    # A server that answers UDP by another address of its own is a fault to be told.
    return reply.source == question.target or question.what == packets.UDP


def mac_text(mac: bytes) -> str:
    """As ip(8) writes it."""
    return mac.hex(":")
