"""Changes on all balancers, as the daemon's API and its commands ask for them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any, TypeVar

from tula.config.load import LoadedConfig
from tula.daemon.everywhere.coordinator import Coordinator
from tula.daemon.everywhere.members import LocalMember, RemoteMember
from tula.daemon.everywhere.participant import GRACE, Participant
from tula.daemon.loop import ControlLoop
from tula.daemon.watch import FileWatch
from tula.engine.control import (
    BusyError,
    NothingToConfirmError,
    Order,
    RefusedError,
)
from tula.engine.everywhere import (
    Asked,
    Change,
    Joint,
    JointOutcome,
    Member,
    MemberError,
    Members,
    Override,
    Prepared,
)
from tula.engine.everywhere_journal import Journal
from tula.engine.history import Entry, digest_of, find_entry
from tula.engine.peers import PeerStore
from tula.engine.store import Store
from tula.kernel.clock import boot_time
from tula.model.errors import StateError
from tula.model.event import EventKind
from tula.plan.everywhere import Standing, Verdict, judge

_LOOK = 1.0
"""Seconds between looks at what is left to be done."""
_LONGEST = 30.0
"""Seconds between two tries of a balancer that does not have what was decided."""
Carry = Callable[[Override, bool], Awaitable[Mapping[str, Any]]]
OwnName = Callable[[LoadedConfig], str | None]
T = TypeVar("T")


class Everywhere:
    """See ``JointControl`` for what each method promises."""

    def __init__(
        self,
        loop: ControlLoop,
        participant: Participant,
        store: Store,
        journal: Journal,
        watch: FileWatch,
        own_name: OwnName,
        carry: Carry,
    ) -> None:
        """``own_name`` finds this machine in a configuration's ``load_balancers``, in a thread;
        ``carry`` carries out an override here."""
        self._loop = loop
        self._store = store
        self._journal = journal
        self._watch = watch
        self._own_name = own_name
        self._carry = carry
        self._peers = PeerStore(store.directory)
        self._pool = ThreadPoolExecutor(32, thread_name_prefix="everywhere")
        self._doubt = ""
        self._trouble = ""
        self._tries = 0
        self.participant = participant
        self.coordinator = Coordinator(journal, participant)

    def close(self) -> None:
        """Waits for nobody."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def apply(self, text: bytes | None, asked: Asked) -> JointOutcome:
        order = Order(network=asked.network and text is not None, from_file=text is None)
        if text is None:
            found = await asyncio.to_thread(self._watch.read)
            if isinstance(found, str):
                raise RefusedError((found,))
            text = found
        members = await self._members(order)
        return await self._whole(self.coordinator.apply(text, asked, members))

    async def confirm(self, by: str, *, dry: bool = False) -> JointOutcome:
        tentative = self._loop.snapshot.tentative
        if tentative is None:
            raise NothingToConfirmError
        if tentative.joint is None:
            raise RefusedError(("this configuration waits on this balancer alone: tula confirm",))
        members = await self._members(Order())
        return await self._whole(self.coordinator.confirm(by, members, dry=dry))

    async def rollback(self, what: int | str | None, asked: Asked) -> JointOutcome:
        members = await self._members(Order())
        if what is None and not asked.dry:
            why = f"rolled back by {asked.by}" if asked.by else "rolled back"
            back = await self._whole(self.coordinator.take_back(members, why))
            if back is not None:
                return back
        entry, text = await asyncio.to_thread(self._past, what)
        how = f"rollback everywhere to {entry.digest[:12]}"
        asked = Asked(
            *(asked.by, how, True, True),
            dry=asked.dry,
            reachable=asked.reachable,
            match=asked.match,
        )
        return await self._whole(self.coordinator.apply(text, asked, members))

    async def override(self, order: Override, *, dry: bool, reachable: bool) -> JointOutcome:
        members = await self._members(Order())
        done = self.coordinator.override(order, members, dry=dry, reachable=reachable)
        return await self._whole(done)

    async def prepare(
        self, change: Change, text: bytes, before: str | None, seconds: float, *, dry: bool
    ) -> Prepared:
        order = Order(dry=dry, network=True, peer=True)
        return await self.participant.prepare(change, text, before, seconds, order)

    async def adopt(self, change: Change, text: bytes, before: str) -> None:
        await self.participant.adopt(change, text, before, Order(network=True, peer=True))

    async def keep(self, change: Change, digest: str) -> None:
        await self.participant.confirm(change, digest)

    async def abort(self, change: str, coordinator: str, why: str) -> None:
        await self.participant.abort(change, coordinator, why)

    async def hold(self, change: str, coordinator: str, seconds: float) -> str:
        before = await self.participant.hold(change, coordinator, seconds)
        tentative = self._loop.snapshot.tentative
        joint = None if tentative is None else tentative.joint
        if joint is not None and await self._own() != joint.coordinator:
            await asyncio.to_thread(self._journal.hand_over, change)
        return before

    async def standing(self, change: str) -> Standing:
        decided, begun, outcomes = await asyncio.to_thread(
            lambda: (self._journal.decided, self._journal.begun, self._journal.outcomes)
        )
        if decided is not None and decided.change.id == change:
            return Standing.CONFIRMED
        if self.coordinator.active == change:
            return Standing.OPEN
        if change in outcomes:
            return outcomes[change]
        tentative = self._loop.snapshot.tentative
        if not self.participant.waits_for(change) or tentative is None:
            mine = begun is not None and begun.change.id == change
            return Standing.ABORTED if mine else Standing.UNKNOWN
        joint = tentative.joint
        over = boot_time() >= tentative.asks
        if over and joint is not None and joint.coordinator == await self._own():
            return Standing.UNKNOWN
        return Standing.OPEN

    def problems(self) -> tuple[str, ...]:
        """What is left to be done, a line each."""
        try:
            entry = self._journal.decided
        except StateError as error:
            return (str(error),)
        lines = [] if entry is None else self.coordinator.lines(entry)
        return tuple(filter(None, (*lines, self._doubt, self._trouble)))

    async def run(self) -> None:
        """Drives on what was decided, and asks about what this balancer is in doubt of."""
        await self._loop.started.wait()
        waited = _LONGEST
        while True:
            await self._resolve()
            waited += _LOOK
            if waited >= min(_LONGEST, 2.0**self._tries):
                waited = 0.0
                await self._drive_on()
            await asyncio.sleep(_LOOK)

    async def _drive_on(self) -> None:
        if self.coordinator.turn.locked():
            return
        async with self.coordinator.turn:
            try:
                left = await asyncio.to_thread(self._unfinished)
                if not left:
                    self._tries, self._trouble = 0, ""
                    return
                # Here it is no order of this time's caller.
                members = await self._members(Order(), all_known=False)
                await self.coordinator.drive_on(members)
                self._trouble = ""
            except (RefusedError, BusyError, StateError) as error:
                self._trouble = f"what was decided on all balancers is not done: {error}"
                self._tries += 1
                return
            left = await asyncio.to_thread(self._unfinished)
            self._tries = self._tries + 1 if left else 0

    def _unfinished(self) -> bool:
        begun = self._journal.begun
        given_up = begun is not None and not self.participant.waits_for(begun.change.id)
        return self._journal.decided is not None or given_up

    async def _resolve(self) -> None:
        """Asks the others what was decided, where the time to confirm is over."""
        joint = self.participant.in_doubt()
        if joint is None:
            self._doubt = ""
            return
        verdict = await self._verdict(joint)
        if verdict is Verdict.FORWARD:
            await self.participant.forward(joint.id)
        elif verdict is Verdict.BACK:
            await self.participant.back(joint.id, "not confirmed in time on all balancers")
        elif not self._doubt and self.coordinator.active != joint.id:
            self._doubt = (
                f"a configuration was not confirmed in time, and {joint.coordinator}, which "
                f"decides about it on all balancers, does not say what was decided; it goes back "
                f"within {GRACE:g} s, and comes again if it was confirmed elsewhere"
            )
            self.participant.tell(EventKind.EVERYWHERE_IN_DOUBT, self._doubt)

    async def _verdict(self, joint: Joint) -> Verdict:
        try:
            members = await self._members(Order(), all_known=False)
        except (RefusedError, BusyError, StateError):
            return Verdict.WAIT
        answers = dict.fromkeys(members.of, Standing.SILENT)

        async def one(name: str, member: Member) -> None:
            with suppress(MemberError, StateError):
                mine = name == members.own
                answers[name] = (
                    await self.standing(joint.id) if mine else await member.standing(joint.id)
                )

        await asyncio.gather(*(one(name, member) for name, member in members.of.items()))
        return judge(answers, joint.coordinator)

    def _past(self, what: int | str | None) -> tuple[Entry, bytes]:
        running = self._loop.snapshot.configuration
        digest = "" if running is None else digest_of(running.source.encode())
        try:
            entry = find_entry(self._store.history(), what, digest)
        except LookupError as error:
            raise RefusedError((str(error.args[0]),)) from None
        return entry, self._store.past_configuration(entry.number)

    async def _own(self) -> str | None:
        running = self._loop.snapshot.configuration
        return None if running is None else await asyncio.to_thread(self._own_name, running)

    async def _members(self, order: Order, *, all_known: bool = True) -> Members:
        """All balancers of the running configuration; ``order`` is what this one's is made from.
        ``all_known``: raises RefusedError for one that cannot be asked."""
        running = self._loop.snapshot.configuration
        if running is None:
            raise BusyError("the daemon is starting; try again")
        names = [name for name, _ in running.config.load_balancers]
        if len(names) < 2:
            raise RefusedError(
                (
                    "--everywhere: the configuration that runs names no other balancers; give "
                    "all in load_balancers, such as {lb1: 10.0.0.2, lb2: 10.0.0.3}",
                )
            )
        own = await asyncio.to_thread(self._own_name, running)
        if own is None:
            raise RefusedError(
                (
                    "--everywhere: this machine has none of the addresses in load_balancers, so "
                    "it is none of them",
                )
            )
        peers = {peer.name: peer for peer in await asyncio.to_thread(self._peers.peers)}
        unknown = [name for name in names if name != own and name not in peers]
        if unknown and all_known:
            raise RefusedError(
                tuple(
                    f"--everywhere: there is no token here to ask {name} with: tula peer add {name}"
                    for name in unknown
                )
            )
        of: dict[str, Member] = {}
        for name in names:
            if name == own:
                of[name] = LocalMember(self.participant, order, self._carry)
            elif name in peers:
                of[name] = RemoteMember(peers[name], self._pool, own)
        return Members(own, of)

    async def _whole(self, work: Awaitable[T]) -> T:
        """To its end, even if the one who asked has gone."""
        return await asyncio.shield(asyncio.ensure_future(work))
