"""Carries out changes on all balancers: asks all, has all take them, decides, and drives on.

What comes next is decided by ``tula.plan.everywhere``; here it is asked for and remembered.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from tula.daemon.everywhere.participant import Participant
from tula.daemon.everywhere.telling import (
    gather,
    ordered,
    told_error,
    told_prepared,
    without_unreachable,
    worst,
)
from tula.engine.control import BusyError, ConditionError, NothingToConfirmError
from tula.engine.everywhere import (
    Asked,
    Change,
    JointError,
    JointOutcome,
    Member,
    MemberError,
    Members,
    Override,
    Prepared,
    Result,
    Told,
    Trouble,
)
from tula.engine.everywhere_journal import Entry, Journal
from tula.engine.history import digest_of
from tula.model.errors import StateError
from tula.model.event import EventKind
from tula.plan.everywhere import Doing, JointChange, begun, recovered

HOLD = 75.0
"""Seconds that a machine waits for the decision before it asks: longer than any may take to take
the configuration."""


@dataclass(slots=True)
class _Work:
    """A change under way."""

    change: Change
    state: JointChange
    troubles: dict[str, MemberError] = field(default_factory=dict)


class Coordinator:
    """One change at a time. ``turn`` is held while one is asked for or driven on."""

    def __init__(self, journal: Journal, own: Participant) -> None:
        self._journal = journal
        self._own = own
        self.turn = asyncio.Lock()
        self.working = False
        """Whether somebody asked for what is done in this turn."""
        self.active = ""
        """The change that is being decided now."""
        self.problems: Mapping[str, str] = {}
        """By machine, why it has not what was decided."""

    async def apply(self, text: bytes, asked: Asked, members: Members) -> JointOutcome:
        """All take the configuration, or none. Raises JointError, ConditionError, BusyError."""
        async with self._alone():
            await asyncio.to_thread(lambda: self._journal.decided)  # damaged: StateError
            seat = await self._own.seat()
            if asked.match is not None and seat.running not in asked.match:
                raise ConditionError(seat.running)
            change = Change(
                secrets.token_hex(8), members.own, asked.by, asked.how, asked.force, asked.yes
            )
            would, left_out = await self._ask(change, text, asked, members)
            digest = digest_of(text)
            if asked.dry:
                told = [told_prepared(n, Result.WOULD, p) for n, p in would.items()]
                return JointOutcome(ordered(members, told + left_out), digest=digest, dry=True)
            before = {name: prepared.before for name, prepared in would.items()}
            entry = Entry(change, digest, before, frozenset(would), text)
            taken = await self._prepare(entry, asked.confirm or HOLD, members)
            if asked.confirm is not None:
                told = [told_prepared(n, Result.WAITS, p) for n, p in taken.items()]
                return JointOutcome(
                    *(ordered(members, told + left_out), change.id, digest),
                    confirm=asked.confirm,
                )
            told = await self._decide(entry, members, taken)
            return JointOutcome(ordered(members, told + left_out), change.id, digest)

    async def confirm(self, by: str, members: Members, *, dry: bool) -> JointOutcome:
        """All keep what waits for it on all. Raises NothingToConfirmError and JointError."""
        async with self._alone():
            seat = await self._own.seat()
            if not seat.waits:
                raise NothingToConfirmError
            text, asked_by, how = self._own.waiting_text()
            change = Change(seat.waits, members.own, asked_by or by, how)
            names = list(members.of)
            if dry:
                told = [Told(name, Result.WOULD) for name in names]
                return JointOutcome(tuple(told), change.id, seat.running, dry=True)
            entry = Entry(change, seat.running, {}, frozenset(names), text)
            self.active = change.id
            await asyncio.to_thread(self._journal.begin, entry)
            held, wrong = await gather(
                {name: m.hold(change.id, members.own, HOLD) for name, m in members.of.items()}
            )
            if wrong:
                machines = [Told(name, Result.WAITS) for name in held]
                machines += [told_error(name, error) for name, error in wrong.items()]
                raise JointError(worst(wrong), ordered(members, machines), nothing=True)
            entry = replace(entry, before=held)
            told = await self._decide(entry, members, {})
            return JointOutcome(ordered(members, told), change.id, entry.digest)

    async def take_back(self, members: Members, why: str) -> JointOutcome | None:
        """All take back what waits on all; None if nothing does here."""
        async with self._alone():
            seat = await self._own.seat()
            if not seat.waits:
                return None
            told = await self._abort(seat.waits, seat.coordinator, why, members, set(members.of))
            await asyncio.to_thread(self._journal.abandon, seat.waits)
            return JointOutcome(ordered(members, list(told.values())), seat.waits, seat.accepted)

    async def override(
        self, order: Override, members: Members, *, dry: bool, reachable: bool
    ) -> JointOutcome:
        """An operator's command, on all: all are asked before the first does it."""
        async with self._alone():
            would, wrong = await gather(
                {name: m.override(order, dry=True) for name, m in members.of.items()}
            )
            left_out = without_unreachable(wrong, reachable, members.own)
            if wrong:
                machines = [Told(name, Result.WOULD) for name in would]
                machines += [told_error(name, error) for name, error in wrong.items()]
                raise JointError(worst(wrong), ordered(members, machines), nothing=True)
            done: Mapping[str, Any] = would
            if not dry:
                done, wrong = await gather(
                    {name: members.of[name].override(order, dry=False) for name in would}
                )
            result = Result.WOULD if dry else Result.DONE
            told = [Told(name, result, override=found) for name, found in done.items()]
            told += [told_error(name, error) for name, error in wrong.items()]
            return JointOutcome(ordered(members, told + left_out), dry=dry)

    async def drive_on(self, members: Members) -> None:
        """Goes on with what was decided, and gives up what was not, after this daemon or another
        has ended in between."""
        entry, given_up = self._journal.decided, self._journal.begun
        if entry is not None:
            work = _Work(entry.change, recovered(entry.left, decided=True))
            await self._confirm(work, entry, members)
        if given_up is not None and not self._own.waits_for(given_up.change.id):
            change = given_up.change
            state = recovered(given_up.left, decided=False)
            why = f"{members.own} has given it up, before it was decided"
            await self._abort(change.id, change.coordinator, why, members, set(state.left))
            await asyncio.to_thread(self._journal.abandon, change.id)
            self._own.tell(
                EventKind.EVERYWHERE_TAKEN_BACK,
                f"configuration {given_up.digest[:12]} was not decided in time, or the daemon "
                "ended: no balancer keeps it",
                change.by,
            )

    def _alone(self) -> _Alone:
        return _Alone(self)

    async def _ask(
        self, change: Change, text: bytes, asked: Asked, members: Members
    ) -> tuple[dict[str, Prepared], list[Told]]:
        """What each would do. Raises JointError unless all that are meant would."""
        would, wrong = await gather(
            {n: m.prepare(change, text, None, HOLD, dry=True) for n, m in members.of.items()}
        )
        left_out = without_unreachable(wrong, asked.reachable, members.own)
        if wrong:
            told = [Told(name, Result.WOULD) for name in would]
            told += [told_error(name, error) for name, error in wrong.items()]
            raise JointError(worst(wrong), ordered(members, told), nothing=True)
        return would, left_out

    async def _prepare(self, entry: Entry, seconds: float, members: Members) -> dict[str, Prepared]:
        """All take it tentatively; if one does not, all take it back, and JointError is raised."""
        change, names = entry.change, entry.left
        self.active = change.id
        await asyncio.to_thread(self._journal.begin, entry)
        work, taken = _Work(change, begun(names)), dict[str, Prepared]()

        async def one(name: str) -> None:
            member, before = members.of[name], entry.before[name]
            try:
                taken[name] = await member.prepare(change, entry.text, before, seconds, dry=False)
                work.state = work.state.voted(name, taken=True)
            except MemberError as error:
                work.troubles[name] = error
                work.state = work.state.voted(name, taken=False, refused=error.refused)

        try:
            await asyncio.gather(*map(one, names))
        except BaseException:
            # A bug, or the daemon ends: none may keep it.
            work.state = work.state.abandoned()
            raise
        if work.state.doing is not Doing.RECORD:
            raise await self._given_up(work, entry, members)
        return taken

    async def _given_up(self, work: _Work, entry: Entry, members: Members) -> JointError:
        change, wrong = work.change, work.troubles
        why = "; ".join(f"{name}: {error}" for name, error in wrong.items())
        told = await self._abort(
            change.id,
            change.coordinator,
            why or "it was not decided",
            members,
            set(work.state.left),
        )
        told |= {name: told_error(name, error) for name, error in wrong.items()}
        await asyncio.to_thread(self._journal.abandon, change.id)
        self._own.tell(
            EventKind.EVERYWHERE_TAKEN_BACK,
            f"configuration {entry.digest[:12]}: {why}; all balancers take it back",
            change.by,
        )
        machines = ordered(members, list(told.values()))
        return JointError(worst(wrong), machines, nothing=False)

    async def _decide(
        self, entry: Entry, members: Members, taken: Mapping[str, Prepared]
    ) -> list[Told]:
        """Records the decision; from here on it holds. Then all keep it."""
        work = _Work(entry.change, begun(entry.left))
        for name in entry.left:
            work.state = work.state.voted(name, taken=True)
        try:
            await asyncio.to_thread(self._journal.decide, entry)
        except StateError as failure:
            work.state = work.state.recorded(done=False)
            told_so = [{"message": f"the decision is not on the disk: {failure}"}]
            work.troubles[members.own] = MemberError(Trouble.FAILED, told_so)
            raise await self._given_up(work, entry, members) from failure
        work.state = work.state.recorded(done=True)
        left = await self._confirm(work, entry, members)
        told = []
        for name in entry.left:
            prepared = taken.get(name, Prepared(""))
            error = work.troubles.get(name)
            result = Result.DONE
            if error is not None:
                result = Result.PENDING if name in left else Result.LEFT
            found = told_prepared(name, result, prepared)
            told.append(found if error is None else replace(found, errors=error.errors))
        return told

    async def _confirm(self, work: _Work, entry: Entry, members: Members) -> frozenset[str]:
        """Has all keep what was decided; those that are left are asked again later."""

        async def one(name: str) -> None:
            member = members.of.get(name)
            if member is None:
                # It is no balancer of this configuration any more.
                await self._settle(work, name)
                return
            try:
                await _confirm_one(member, name, entry)
            except MemberError as error:
                work.troubles[name] = error
                if error.trouble is not Trouble.ANOTHER:
                    return
            await self._settle(work, name)

        await asyncio.gather(*map(one, sorted(work.state.left)))
        self._tell(work, entry)
        return work.state.left

    async def _settle(self, work: _Work, name: str) -> None:
        work.state = work.state.settled(name)
        await asyncio.to_thread(self._journal.settle, name)

    def _tell(self, work: _Work, entry: Entry) -> None:
        left, before = work.state.left, self.problems
        self.problems = {name: str(work.troubles[name]) for name in sorted(left)}
        name, by = f"configuration {entry.digest[:12]}", entry.change.by
        for machine, error in work.troubles.items():
            if machine not in left:
                self._own.tell(EventKind.EVERYWHERE_UNFINISHED, f"{machine}: {error}", by)
        if not left:
            self._own.tell(EventKind.EVERYWHERE_DONE, f"{name} was confirmed on all balancers", by)
        elif left != before.keys():
            told = "; ".join(self.lines(entry))
            self._own.tell(EventKind.EVERYWHERE_UNFINISHED, told, by)

    def lines(self, entry: Entry) -> list[str]:
        """What is left to be done of what was decided, a line a machine."""
        name = f"configuration {entry.digest[:12]}"
        return [
            f"{machine} has not confirmed {name}, and gets it when it is back"
            + (f": {self.problems[machine]}" if machine in self.problems else "")
            for machine in sorted(entry.left)
        ]

    async def _abort(
        self, change: str, coordinator: str, why: str, members: Members, names: set[str]
    ) -> dict[str, Told]:
        """Has them take it back. Who does not hear it asks when its time is over, and is told."""

        async def one(name: str) -> Told:
            member = members.of.get(name)
            if member is None:
                return Told(name, Result.LEFT_OUT)
            try:
                await member.abort(change, coordinator, why)
            except MemberError as error:
                late = {"message": f"{error}; it takes it back when its time to confirm is over"}
                return Told(name, Result.UNREACHABLE, (late,))
            return Told(name, Result.TAKEN_BACK)

        return {told.machine: told for told in await asyncio.gather(*map(one, sorted(names)))}


class _Alone:
    """Inside it is this change's turn. Raises BusyError if it is another's."""

    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def __aenter__(self) -> None:
        if self._coordinator.turn.locked() and self._coordinator.working:
            raise BusyError("another change of all balancers is under way; try again")
        await self._coordinator.turn.acquire()
        self._coordinator.working = True

    async def __aexit__(self, *_: object) -> None:
        self._coordinator.working, self._coordinator.active = False, ""
        self._coordinator.turn.release()


async def _confirm_one(member: Member, name: str, entry: Entry) -> None:
    """Keeps it, or gets it again where it is lost."""
    try:
        await member.confirm(entry.change, entry.digest)
    except MemberError as error:
        if error.trouble is not Trouble.LOST:
            raise
        await member.adopt(entry.change, entry.text, entry.before[name])
