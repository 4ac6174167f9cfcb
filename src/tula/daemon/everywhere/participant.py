"""This machine's part in a change on all balancers: it takes a configuration tentatively, and keeps
it or takes it back as the coordinator has decided.

What to answer is decided by ``tula.plan.everywhere.Seat``; here it is done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import asdict, replace

from tula.daemon.loop import ControlLoop
from tula.daemon.writer import Writer
from tula.engine.control import (
    ApplyOutcome,
    BusyError,
    ConditionError,
    NothingToConfirmError,
    Order,
    RefusedError,
)
from tula.engine.event_log import EventLog
from tula.engine.everywhere import Change, Joint, MemberError, Prepared, Trouble
from tula.engine.everywhere_journal import Journal
from tula.engine.history import digest_of
from tula.engine.store import Store
from tula.kernel.clock import boot_time
from tula.model.errors import StateError
from tula.model.event import EventKind
from tula.plan.everywhere import Reply, Seat, Standing

Apply = Callable[[bytes | None, Order], Awaitable[ApplyOutcome]]
GRACE = 10.0
"""Seconds in which a machine in doubt asks what was decided, before it takes it back by itself. Not
long: a configuration that cuts it off from the others must go, whatever they have decided."""


class Participant:
    """One change at a time. Raises ControlError, KernelError and StateError."""

    def __init__(
        self,
        loop: ControlLoop,
        writer: Writer,
        apply: Apply,
        store: Store,
        journal: Journal,
        events: EventLog,
    ) -> None:
        self._loop = loop
        self._writer = writer
        self._apply = apply
        self._store = store
        self._journal = journal
        self._events = events
        self._turn = asyncio.Lock()

    async def seat(self) -> Seat:
        """What this machine has."""
        snapshot = self._loop.snapshot
        running, tentative = snapshot.configuration, snapshot.tentative
        if running is None:
            raise BusyError("the daemon is starting; try again")
        accepted = running if tentative is None else tentative.before
        joint = None if tentative is None else tentative.joint
        outcomes = await asyncio.to_thread(lambda: self._journal.outcomes)
        return Seat(
            digest_of(accepted.source.encode()),
            digest_of(running.source.encode()),
            waits="" if joint is None else joint.id,
            coordinator="" if joint is None else joint.coordinator,
            busy=tentative is not None and joint is None,
            outcomes=outcomes,
        )

    async def prepare(
        self,
        change: Change,
        text: bytes,
        before: str | None,
        seconds: float,
        order: Order,
    ) -> Prepared:
        """See ``Member.prepare``; with ``order.dry`` nothing changes. The order says whose content
        it is."""
        async with self._turn:
            seat = await self.seat()
            reply = seat.to_prepare(change.id, before or seat.running)
            if reply is Reply.DONE:
                return Prepared(seat.accepted)
            self._refuse(reply, seat)
            if digest_of(text) in await self._accepted_before():
                order = replace(order, network=False)  # programs and all, as by rollback
            joint = Joint(change.id, change.coordinator, GRACE)
            outcome = await self._take(
                text, replace(order, confirm=seconds, joint=joint), change, seat.running
            )
            return Prepared(
                seat.running,
                outcome.changed,
                outcome.summary,
                tuple(asdict(warning) for warning in outcome.warnings),
            )

    async def _accepted_before(self) -> frozenset[str]:
        history = await asyncio.to_thread(self._store.history)
        return frozenset(entry.digest for entry in history)

    async def _take(self, text: bytes, order: Order, change: Change, before: str) -> ApplyOutcome:
        order = replace(
            order,
            by=change.by,
            how=change.how,
            force=change.force,
            yes=change.yes,
            match=frozenset({before}),
        )
        outcome = await self._apply(text, order)
        if outcome.problems:
            told = [
                {name: value for name, value in asdict(found).items() if name != "file" or value}
                for found in outcome.problems
            ]
            raise MemberError(Trouble.CONFIGURATION, told)
        return outcome

    async def hold(self, change: str, coordinator: str, seconds: float) -> str:
        """See ``Member.hold``."""
        async with self._turn:
            joint = Joint(change, coordinator, GRACE)
            return await self._loop.in_writer(lambda: self._writer.hold(joint, seconds))

    async def confirm(self, change: Change, digest: str) -> None:
        """See ``Member.confirm``."""
        async with self._turn:
            reply = (await self.seat()).to_confirm(change.id, digest)
            if reply is Reply.LOST:
                raise NothingToConfirmError
            if reply is Reply.DO:
                await self._keep(change.id, change.by)

    async def _keep(self, change: str, by: str) -> None:
        await self._loop.in_writer(lambda: self._writer.confirm(by, change=change))
        await self._note(change, Standing.CONFIRMED)

    async def adopt(self, change: Change, text: bytes, before: str, order: Order) -> None:
        """See ``Member.adopt``."""
        async with self._turn:
            seat = await self.seat()
            reply = seat.to_adopt(change.id, digest_of(text), before)
            if reply is Reply.DONE:
                return
            if reply is Reply.DO and seat.waits == change.id:
                await self._keep(change.id, change.by)
                return
            self._refuse(reply, seat)
            if digest_of(text) in await self._accepted_before():
                order = replace(order, network=False)
            await self._take(text, order, replace(change, yes=True), before)
            await self._note(change.id, Standing.CONFIRMED)

    async def abort(self, change: str, coordinator: str, why: str) -> None:
        """See ``Member.abort``."""
        async with self._turn:
            reply = (await self.seat()).to_abort(change, coordinator)
            if reply is Reply.ANOTHER:
                raise RefusedError(("another balancer decides about it by now",))
            if reply is Reply.DO:
                await self._loop.go_back("", why=why)
            await self._note(change, Standing.ABORTED)

    async def forward(self, change: str) -> None:
        """It was decided, as another balancer says, while this one was in doubt."""
        async with self._turn:
            if (await self.seat()).waits == change:
                await self._keep(change, "")

    async def back(self, change: str, why: str) -> None:
        """There is no decision."""
        async with self._turn:
            if (await self.seat()).waits == change:
                await self._loop.go_back("", why=why)
                await self._note(change, Standing.ABORTED)

    async def standing(self, change: str) -> Standing:
        """What this machine knows of it, as one that takes part."""
        return (await self.seat()).standing(change)

    def in_doubt(self) -> Joint | None:
        """The change whose time to be confirmed is over here."""
        tentative = self._loop.snapshot.tentative
        if tentative is None or tentative.joint is None or boot_time() < tentative.asks:
            return None
        return tentative.joint

    def waits_for(self, change: str) -> bool:
        """Whether its configuration waits for confirmation here."""
        tentative = self._loop.snapshot.tentative
        joint = None if tentative is None else tentative.joint
        return joint is not None and joint.id == change

    def waiting_text(self) -> tuple[bytes, str, str]:
        """The configuration that waits for confirmation, who asked for it, and how."""
        snapshot = self._loop.snapshot
        if snapshot.tentative is None or snapshot.configuration is None:
            raise NothingToConfirmError
        record = snapshot.tentative.record
        return snapshot.configuration.source.encode(), record.by, record.how

    def tell(self, kind: EventKind, message: str, by: str = "") -> None:
        """Adds an event."""
        self._events.add(kind, message=message, by=by)

    async def _note(self, change: str, standing: Standing) -> None:
        with suppress(StateError):  # whoever asks hears less, and waits for the coordinator
            await asyncio.to_thread(self._journal.note, change, standing)

    @staticmethod
    def _refuse(reply: Reply, seat: Seat) -> None:
        if reply is Reply.ANOTHER:
            raise ConditionError(seat.running)
        if reply is Reply.OVER:
            raise RefusedError(("this change is over: it was taken back",))
        if reply is Reply.BUSY and seat.waits:
            raise RefusedError(
                (
                    f"another change on all balancers, by {seat.coordinator}, is under way or "
                    "waits; try again in a moment, and if it waits: tula confirm --everywhere, or "
                    "tula rollback --everywhere",
                )
            )
        if reply is Reply.BUSY:
            raise RefusedError(
                ("a configuration waits for confirmation here: tula confirm, or tula rollback",)
            )
