"""Asks the other balancers about once a second, each on its own, and tells what has changed.

A peer that is dead or slow delays nobody: each has a thread that waits for it, and everything is
decided in the event loop. Nothing that forwards packets depends on this.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from tula.daemon.own_peer_view import OwnPeerView, OwnRole
from tula.daemon.peer_state import Lasting, PeerState, Told
from tula.daemon.snapshot import Snapshot
from tula.engine.event_log import EventLog
from tula.engine.peer_client import PeerClient, PeerError
from tula.engine.peer_facts import BalancerFacts
from tula.engine.peer_view import NoViewError, View, parse_view
from tula.engine.peers import Peer, PeerStore
from tula.model.config import IPAddress
from tula.model.errors import KernelError, StateError
from tula.model.event import EventKind

ASK, SHARE = "/peer", "/peer/flows"
"""What a balancer tells of itself, and the order to tell its flows again; below /api/v1."""
_EVERY = 1.0
"""Seconds between questions."""
_SOON = 0.1
"""The same while somebody may wait for the flows of peers."""
_TIMEOUT = 2.0
_SHARING = 10.0
"""Seconds that a peer may take to begin telling its flows: its writer may be at something long."""
_LEARNING = 2.0
"""Seconds in which active flows have come, once a peer has begun: each with its next packet."""
_PATIENCE = 6.0
"""Seconds after which nobody waits for the flows of peers any more."""
_NOT_ADDED = "not added here: tula peer add"


@dataclass(slots=True)
class _Follow:
    """One peer that is asked."""

    peer: Peer
    client: PeerClient
    state: PeerState
    thread: ThreadPoolExecutor
    task: asyncio.Task[None] | None = None
    learned: float | None = None
    """from when on its flows are known here (time.monotonic); None: it has not begun"""

    async def end(self) -> None:
        if self.task is not None:
            self.task.cancel()
            await asyncio.gather(self.task, return_exceptions=True)
        self.client.close()
        self.thread.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class _File:
    """``peers.json``, read again whenever it has changed."""

    store: PeerStore
    problem: str = ""
    peers: dict[str, Peer] = field(default_factory=dict)
    _signature: tuple[int, ...] | None = None

    def look(self) -> None:
        try:
            found = self.store.path.lstat()
            signature = (found.st_ino, found.st_mtime_ns, found.st_size)
        except OSError:
            self.peers, self.problem, self._signature = {}, "", None
            return
        if signature != self._signature:
            self._signature = signature
            try:
                self.peers = {peer.name: peer for peer in self.store.peers()}
                self.problem = ""
            except StateError as error:
                self.peers, self.problem = {}, str(error)


class PeerWatch:
    """``run`` asks; the rest is asked of it, in the event loop."""

    def __init__(
        self,
        state_dir: Path,
        snapshot: Callable[[], Snapshot],
        events: EventLog,
        share: Callable[[], Awaitable[None]],
        role: Callable[[], OwnRole] = OwnRole,
        every: float = _EVERY,
        patience: float = _PATIENCE,
    ) -> None:
        """``share`` has the data path tell its flows again; it may raise KernelError. ``role`` is
        that of this balancer. ``patience`` is how long the flows of peers are waited for, in
        seconds."""
        self.own = OwnPeerView(snapshot, role)
        self.flows_learned: asyncio.Event = asyncio.Event()
        """Set once the flows of all peers that live are known here, or nobody waits any more."""
        self._file = _File(PeerStore(state_dir))
        self._events = events
        self._share = share
        self._every, self._patience = every, patience
        self._states: dict[str, PeerState] = {}
        self._following: dict[str, _Follow] = {}
        self._roles, self._role = Lasting(), role
        self._shared = asyncio.Lock()
        self._next_share = 0.0
        self._own_view: View | None = None
        self._own_name = ""

    @property
    def facts(self) -> BalancerFacts:
        """How all balancers stand, for status and metrics."""
        (name, _), role = self.own.balancers(), self._role()
        problems = (self._file.problem,) if self._file.problem else ()
        states = tuple(state.facts(name) for state in self._states.values())
        return BalancerFacts(name, role.role, role.standby, self.own.flows, states, problems)

    @property
    def standing(self) -> tuple[str, tuple[PeerState, ...]]:
        """The own name, and how the others stand; for any thread, to be read only."""
        return self._own_name, tuple(self._states.values())

    async def learn_flows(self) -> None:
        """Returns once the flows of the peers that are heard are here. What they were asked to
        tell again comes with each flow's next packet, within two seconds for one that is active.
        """
        await self.flows_learned.wait()

    async def share_again(self) -> None:
        """Has our flows told to all peers again; at most once a second, since a peer that comes
        back asks for it and is seen to be back. Raises KernelError."""
        asked = time.monotonic()
        async with self._shared:
            if self._next_share - _EVERY >= asked:
                return  # somebody's, which began after this was asked for
            await asyncio.sleep(self._next_share - time.monotonic())
            self._next_share = time.monotonic() + _EVERY
            await self._share()

    async def run(self) -> None:
        """Until it is cancelled."""
        began = time.monotonic()
        try:
            while True:
                # Before the peers are chosen: who is ready has chosen, too.
                own = self._own_view = await self.own.make()
                await self._choose()
                self.own.hears = {name: state.alive for name, state in self._states.items()}
                await self._judge(own)
                self._settle(began, own)
                soon = not self.flows_learned.is_set()
                await asyncio.sleep(min(self._every, _SOON) if soon else self._every)
        finally:
            following, self._following = self._following, {}
            for each in following.values():
                await each.end()

    async def _choose(self) -> None:
        """Follows those of ``load_balancers`` that there is a token for."""
        self._file.look()
        self._own_name, others = self.own.balancers()
        self._states = {name: self._state(name, address) for name, address in others}
        wanted = {n: self._file.peers[n] for n, _ in others if n in self._file.peers}
        for name, state in self._states.items():
            state.added = name in wanted
            if not state.added:
                state.alive, state.why = False, _NOT_ADDED + f" {name}"
        for name in [n for n, f in self._following.items() if wanted.get(n) != f.peer]:
            await self._following.pop(name).end()
        for name, peer in wanted.items():
            found = self._following.get(name)
            if found is None:
                thread = ThreadPoolExecutor(1, thread_name_prefix=f"peer-{name}")
                client = PeerClient(peer, _TIMEOUT)
                found = _Follow(peer, client, self._states[name], thread)
                self._following[name] = found
                found.task = asyncio.create_task(self._follow(found), name=f"peer-{name}")
            elif found.task is not None and found.task.done():
                found.task.result()  # raises what ended it: whoever runs this starts it again
            found.state = self._states[name]

    def _state(self, name: str, address: IPAddress) -> PeerState:
        found = self._states.get(name)
        if found is None or found.address != str(address):
            return PeerState(name, str(address))
        return found

    async def _follow(self, what: _Follow) -> None:
        while True:
            began = time.monotonic()
            await self._ask(what)
            await self._give(what)
            await asyncio.sleep(max(0.0, began + self._every - time.monotonic()))

    async def _ask(self, what: _Follow) -> None:
        """One question."""
        before = what.state.view
        known = "" if before is None else before.details_digest
        told = "" if before is None else before.notified.digest

        def ask() -> tuple[View, float, float, float]:
            answer = what.client.ask("GET", f"{ASK}?known={quote(known)}&notified={quote(told)}")
            if answer.status >= 300:
                raise PeerError(answer.refusal())
            try:
                view = parse_view(answer.json(), before)
            except NoViewError as error:
                raise PeerError(str(error)) from None
            return view, answer.sent, answer.heard, time.time()

        loop, state = asyncio.get_running_loop(), what.state
        try:
            view, sent, heard, wall = await loop.run_in_executor(what.thread, ask)
            if view.name and view.name != state.name:
                raise PeerError(f"it is {view.name}, and not {state.name}: tula peer add again")
        except PeerError as error:
            self._tell(state.name, state.failed(str(error), time.monotonic(), time.time()))
        else:
            self._tell(state.name, state.answered(view, sent, heard, wall))

    async def _give(self, what: _Follow) -> None:
        """Tells a peer that came back our flows, and asks for its at our own start."""
        state = what.state
        if not state.alive or state.view is None or not self._ready:
            return
        if what.learned is None:
            what.learned = await self._learn(what)
        if state.owed and state.view.ready:
            try:
                await self.share_again()
                state.owed = False
            except KernelError as error:
                self._events.add(
                    EventKind.PEER_BACK, state.name, "our flows are not sent to it yet", str(error)
                )

    @property
    def _ready(self) -> bool:
        return self._own_view is not None and self._own_view.ready

    async def _learn(self, what: _Follow) -> float | None:
        """Has it tell its flows, and says from when on they are here; None: ask again."""
        loop = asyncio.get_running_loop()
        try:
            answer = await loop.run_in_executor(
                what.thread, lambda: what.client.ask("POST", SHARE, timeout=_SHARING)
            )
        except PeerError:
            return None
        if answer.status == 404:  # a version that shares no flows
            return answer.heard
        return answer.heard + _LEARNING if answer.status < 300 else None

    async def _judge(self, own: View) -> None:
        now, known = time.monotonic(), await self.own.known()
        for name, state in self._states.items():
            self._tell(name, state.silent(now, time.time()))
            self._tell(name, state.judge(own, known, now))
        roles = [own.role] + [
            state.view.role for state in self._states.values() if state.alive and state.view
        ]
        wrong = None
        # With somebody unheard of, nobody knows who holds the VIPs.
        if own.role is not None and len(roles) == len(self._states) + 1 and len(roles) > 1:
            wrong = roles.count("active") != 1 if self._one_active() else None
        turned = self._roles.turned(now, wrong)
        if turned is not None:
            count = roles.count("active")
            kind = EventKind.ROLES_WRONG if turned else EventKind.ROLES_RIGHT
            told = "one balancer holds" if count == 1 else f"{count or 'no'} balancers hold"
            self._events.add(kind, message=f"{told} the VIPs of VRRP")

    def _one_active(self) -> bool:
        running = self.own.running
        return running is not None and running.high_availability.vrrp is not None

    def _settle(self, began: float, own: View) -> None:
        """Decides whether somebody still has to wait for the flows of peers."""
        if self.flows_learned.is_set() or not own.ready:
            return
        now = time.monotonic()
        learned = all(
            each.learned is not None and each.learned <= now for each in self._following.values()
        )
        if learned or now - began > self._patience:
            self.flows_learned.set()

    def _tell(self, name: str, told: Iterable[Told]) -> None:
        for kind, message in told:
            self._events.add(kind, name, message)
