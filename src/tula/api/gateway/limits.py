"""What clients may do at most. The figures are in docs/api.md."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from tula.engine.refusals import client_key

CONNECTIONS = 1536
"""In all."""
BY_ADDRESS = 768
"""Of one address (IPv6: of one /64) whose token was accepted."""
PENDING, PENDING_BY_ADDRESS = 1024, 640
"""Connections on which no token was accepted yet; a new one ends the oldest of these."""
NEW, NEW_RATE = 800, 50.0
"""New connections of an address at once, and a second."""
REQUESTS, REQUEST_RATE = 400, 100.0
"""The same for requests."""
HANDSHAKE, HEADER, IDLE, STALLED = 10.0, 10.0, 60.0, 30.0
"""Seconds for TLS's handshake, for the head of a request from its first byte, between two
requests, and without a byte taken of an answer."""
FIRST_REQUEST = 10.0
"""Seconds from the connection to the head of the first request."""
BODY, BODY_RATE = 10.0, 64 * 1024
"""A body has these seconds, and one more for each so many bytes that came."""
HEAD_BYTES = 16 * 1024
BODY_BYTES, CONFIGURATION_BYTES = 64 * 1024, 16 * 1024 * 1024
BODIES_BYTES = 48 * 1024 * 1024
"""Of all bodies that are in memory."""
SMALL_BODIES_BYTES = 8 * 1024 * 1024
"""Of these, kept for bodies of BODY_BYTES and less: whoever sends configurations, and may not have
them applied, must not keep an operator from a drain."""
PLANS, PLANS_WAITING = 1, 8
"""Plans at a time, and those that wait. One of a large configuration takes seconds, and who may
only read may ask for it: neither changes nor reads wait for those."""
ANSWERS_BYTES = 128 * 1024 * 1024
"""Of all large answers that clients have yet to take; the one that takes longest goes first."""
READS, READS_WAITING, CHANGES, CHANGES_WAITING = 4, 64, 2, 16
"""Requests to the daemon at a time, and those that wait for their turn."""
READ_SECONDS, CHANGE_SECONDS = 30.0, 180.0
"""How long the daemon may take to answer."""


@dataclass(slots=True, eq=False)
class Ticket:
    """One connection's place; ``evict`` ends it."""

    key: str
    evict: Callable[[], object]
    proven: bool = False
    """whether a token was accepted on it"""


@dataclass(slots=True)
class Places:
    """Who may connect. Connections without an accepted token never keep those with one away: when
    there is no room, the oldest of them goes."""

    most: int = CONNECTIONS
    by_address: int = BY_ADDRESS
    pending: int = PENDING
    pending_by_address: int = PENDING_BY_ADDRESS
    evicted: int = 0
    _pending: OrderedDict[Ticket, None] = field(default_factory=OrderedDict)
    _idle: OrderedDict[Ticket, None] = field(default_factory=OrderedDict)
    _pending_of: dict[str, OrderedDict[Ticket, None]] = field(default_factory=dict)
    _proven_of: Counter[str] = field(default_factory=Counter)
    _proven: int = 0

    def __len__(self) -> int:
        return len(self._pending) + self._proven

    def take(self, address: str, evict: Callable[[], object]) -> Ticket | None:
        """A place for a new connection from this address; None: there is none."""
        ticket = Ticket(client_key(address), evict)
        own = self._pending_of.get(ticket.key)
        if own is not None and len(own) >= self.pending_by_address:
            self._evict(next(iter(own)))
        elif len(self._pending) >= self.pending or (len(self) >= self.most and self._pending):
            self._evict(next(iter(self._pending)))
        elif len(self) >= self.most:
            if not self._idle:
                return None
            self._evict(next(iter(self._idle)))
        self._pending[ticket] = None
        self._pending_of.setdefault(ticket.key, OrderedDict())[ticket] = None
        return ticket

    def prove(self, ticket: Ticket) -> bool:
        """A token was accepted on it; False if the address has too many of those."""
        self._idle.pop(ticket, None)
        if ticket.proven:
            return True
        if ticket not in self._pending or self._proven_of[ticket.key] >= self.by_address:
            return False
        self._forget_pending(ticket)
        ticket.proven = True
        self._proven += 1
        self._proven_of[ticket.key] += 1
        return True

    def rest(self, ticket: Ticket) -> None:
        """Nothing is asked on it at the moment: it may go for another."""
        if ticket.proven:
            self._idle[ticket] = None

    def release(self, ticket: Ticket) -> None:
        """The connection has ended. More than once does no harm."""
        self._idle.pop(ticket, None)
        if ticket in self._pending:
            self._forget_pending(ticket)
        elif ticket.proven:
            ticket.proven = False
            self._proven -= 1
            self._proven_of[ticket.key] -= 1
            if not self._proven_of[ticket.key]:
                del self._proven_of[ticket.key]

    def _evict(self, ticket: Ticket) -> None:
        self.evicted += 1
        self.release(ticket)
        ticket.evict()

    def _forget_pending(self, ticket: Ticket) -> None:
        del self._pending[ticket]
        own = self._pending_of[ticket.key]
        del own[ticket]
        if not own:
            del self._pending_of[ticket.key]


@dataclass(slots=True)
class Budget:
    """Bytes of bodies in memory, of all requests together."""

    left: int = BODIES_BYTES

    def take(self, size: int, keep: int = 0) -> bool:
        """Whether there is room for so many more, with so many kept."""
        if size > self.left - keep:
            return False
        self.left -= size
        return True

    def give(self, size: int) -> None:
        """They are no longer needed."""
        self.left += size


@dataclass(slots=True, eq=False)
class Untaken:
    """An answer that a client has yet to take; ``evict`` ends its connection."""

    body: bytes
    evict: Callable[[], object]


@dataclass(slots=True)
class Answers:
    """Answers in memory, each counted once however many clients are sent it. Slow readers of many
    large ones never use more than this: those that began first are ended for the newest."""

    most: int = ANSWERS_BYTES
    size: int = 0
    _held: OrderedDict[Untaken, None] = field(default_factory=OrderedDict)
    _clients: Counter[int] = field(default_factory=Counter)

    def hold(self, body: bytes, evict: Callable[[], object]) -> Untaken:
        """Until ``release``."""
        found = Untaken(body, evict)
        if not self._clients[id(body)]:
            while self._held and self.size + len(body) > self.most:
                oldest = next(iter(self._held))
                self.release(oldest)
                oldest.evict()
            self.size += len(body)
        self._clients[id(body)] += 1
        self._held[found] = None
        return found

    def release(self, found: Untaken) -> None:
        """More than once does no harm."""
        if found not in self._held:
            return
        del self._held[found]
        key = id(found.body)
        self._clients[key] -= 1
        if not self._clients[key]:
            del self._clients[key]
            self.size -= len(found.body)
