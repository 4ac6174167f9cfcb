"""All old or all new: every order of messages, losses, deaths and times that are over.

A world of three balancers is explored step by step with the pure decisions as they are. From every
state that can be reached all machines come back, nothing is lost any more, and all must end alike.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, replace

import pytest

from tula.plan.everywhere import (
    Doing,
    JointChange,
    Reply,
    Seat,
    Standing,
    Verdict,
    begun,
    judge,
    recovered,
)

ID, OLD, NEW = "c1", "old", "new"
NAMES = ("a", "b", "c")
LEADER = "a"
SOAK = bool(os.environ.get("TULA_SOAK"))


@dataclass(frozen=True)
class Machine:
    """A balancer; ``knows`` is what of outcomes it remembers."""

    alive: bool = True
    accepted: str = OLD
    running: str = OLD
    waits: bool = False
    knows: str = ""

    @property
    def seat(self) -> Seat:
        outcomes = {ID: Standing(self.knows)} if self.knows else {}
        return Seat(self.accepted, self.running, ID if self.waits else "", LEADER, False, outcomes)

    def prepare(self) -> Machine:
        if self.seat.to_prepare(ID, OLD) is Reply.DO:
            return replace(self, running=NEW, waits=True)
        return self

    def keep(self) -> Machine:
        return replace(self, accepted=NEW, running=NEW, waits=False, knows="confirmed")

    def back(self, knows: str = "") -> Machine:
        return replace(self, running=self.accepted, waits=False, knows=knows or self.knows)

    def confirm(self) -> tuple[Machine, bool]:
        """And whether the coordinator need not ask again."""
        reply = self.seat.to_confirm(ID, NEW)
        if reply is Reply.LOST:
            reply = self.seat.to_adopt(ID, NEW, OLD)
        assert reply is not Reply.ANOTHER
        return (self.keep() if reply is Reply.DO else self), reply in (Reply.DO, Reply.DONE)

    def abort(self) -> Machine:
        if self.seat.to_abort(ID, LEADER) is Reply.DO:
            return self.back("aborted")
        return replace(self, knows=self.knows or "aborted")

    def die(self, forgets: bool) -> Machine:
        knows = self.knows if self.knows == "confirmed" and not forgets else ""
        return Machine(False, self.accepted, self.accepted, False, knows)


@dataclass(frozen=True)
class World:
    """``journal`` is on the coordinator's disk: nothing, begun, decided. ``late`` are machines to
    which a request is still under way that nobody waits for any more."""

    machines: tuple[Machine, ...] = (Machine(),) * len(NAMES)
    change: JointChange | None = None
    journal: str = ""
    was_decided: bool = False
    told: str = ""
    late: frozenset[str] = frozenset()
    deaths: int = 0
    losses: int = 0
    ends: int = 0

    def at(self, name: str) -> Machine:
        return self.machines[NAMES.index(name)]

    def put(self, name: str, machine: Machine) -> World:
        machines = list(self.machines)
        machines[NAMES.index(name)] = machine
        return replace(self, machines=tuple(machines))

    def go(self, change: JointChange) -> World:
        """The coordinator has come so far."""
        if change.doing is Doing.NOTHING:
            told = "taken back" if change.failed else "done"
            return replace(self, change=change, journal="", told=self.told or told)
        return replace(self, change=change)

    def leader_knows(self) -> Standing:
        change = self.change
        if self.journal == "decided":
            return Standing.CONFIRMED
        if change is not None and change.doing in (Doing.PREPARE, Doing.RECORD):
            return Standing.OPEN
        if change is not None and change.doing is Doing.ABORT:
            return Standing.ABORTED
        return self.at(LEADER).seat.standing(ID) if not self.at(LEADER).waits else Standing.UNKNOWN

    def doubt(self, name: str, deaf: frozenset[str] = frozenset()) -> World:
        """A machine whose time is over asks the others."""
        machine, answers = self.at(name), {}
        for other in NAMES:
            known = self.leader_knows() if other == LEADER else self.at(other).seat.standing(ID)
            there = self.at(other).alive and other not in deaf
            if other != name or other == LEADER:
                answers[other] = known if there else Standing.SILENT
        verdict = judge(answers, LEADER)
        if verdict is Verdict.FORWARD:
            return self.put(name, machine.keep())
        return self.put(name, machine.back()) if verdict is Verdict.BACK else self


@dataclass(frozen=True)
class Budget:
    deaths: int
    losses: int
    ends: int


def steps(world: World, budget: Budget) -> Iterator[World]:
    """All that may happen next."""
    change, leader = world.change, world.at(LEADER)
    lost = replace(world, losses=world.losses + 1) if world.losses < budget.losses else None
    if leader.alive and change is not None:
        if change.doing is Doing.RECORD:
            yield record(world, done=True)
            if lost is not None:  # the disk is full
                yield record(lost, done=False)
        for name in change.left if change.doing is not Doing.RECORD else ():
            yield from asked(world, lost, change, name)
    for name in NAMES:
        machine = world.at(name)
        if not machine.alive:
            yield restart(world, name)
            continue
        if world.deaths < budget.deaths:
            for forgets in (True, False) if machine.knows == "confirmed" else (True,):
                yield die(world, name, forgets)
        if machine.waits:
            yield world.doubt(name)
            if lost is not None:
                yield lost.doubt(name, frozenset(NAMES) - {name})
            if world.ends < budget.ends:
                ended = world.put(name, machine.back())
                yield replace(ended, ends=world.ends + 1)
        if name in world.late:
            yield replace(world.put(name, machine.prepare()), late=world.late - {name})


def record(world: World, *, done: bool) -> World:
    assert world.change is not None
    after = world.go(world.change.recorded(done=done))
    return replace(after, journal="decided", was_decided=True) if done else after


def asked(world: World, lost: World | None, change: JointChange, name: str) -> Iterator[World]:
    """The coordinator asks a machine for what is to be done now."""
    machine = world.at(name)
    if change.doing is Doing.PREPARE:
        silent = change.voted(name, taken=False)
        if not machine.alive:
            yield world.go(silent)
            return
        after = machine.prepare()
        yield world.put(name, after).go(
            change.voted(name, taken=after.waits, refused=not after.waits)
        )
        yield world.go(change.voted(name, taken=False, refused=True))  # it does not fit there
        if lost is not None:
            yield lost.put(name, after).go(silent)
            yield replace(lost.go(silent), late=world.late | {name})
    elif change.doing is Doing.CONFIRM and machine.alive:
        kept, done = machine.confirm()
        world = world.put(name, kept)
        yield world.go(change.settled(name)) if done else world
        if lost is not None:
            yield lost.put(name, kept)
    elif change.doing is Doing.ABORT:
        if machine.alive:
            yield world.put(name, machine.abort()).go(change.settled(name))
        if not machine.alive or lost is not None:
            yield (lost or world).go(change.settled(name))


def die(world: World, name: str, forgets: bool) -> World:
    found = world.put(name, world.at(name).die(forgets))
    found = replace(found, deaths=world.deaths + 1, late=world.late - {name})
    return replace(found, change=None) if name == LEADER else found


def restart(world: World, name: str) -> World:
    found = world.put(name, replace(world.at(name), alive=True))
    if name != LEADER or not world.journal:
        return found
    return found.go(recovered(frozenset(NAMES), decided=world.journal == "decided"))


def heal(world: World) -> World:
    """Everybody is back and hears everybody; whose time is over asks."""
    for name in NAMES:
        if not world.at(name).alive:
            world = restart(world, name)
    for name in sorted(world.late):
        world = replace(world.put(name, world.at(name).prepare()), late=frozenset())
    for _ in range(40):
        change = world.change
        if change is not None and change.doing is Doing.RECORD:
            world = record(world, done=True)
        elif change is not None and change.left:
            world = next(asked(world, None, change, min(change.left)))
        else:
            for name in NAMES:
                world = world.doubt(name) if world.at(name).waits else world
    return world


def explore(budget: Budget) -> int:
    first = replace(World(), change=begun(frozenset(NAMES)), journal="begun")
    seen, ahead = {first}, [first]
    while ahead:
        world = ahead.pop()
        check(world)
        for after in steps(world, budget):
            if after not in seen:
                seen.add(after)
                ahead.append(after)
    return len(seen)


def check(world: World) -> None:
    if not world.was_decided:
        assert all(machine.accepted == OLD for machine in world.machines), world
    ended = heal(world)
    alike = NEW if ended.was_decided else OLD
    assert {m.accepted for m in ended.machines} == {alike}, (world, ended)
    assert {m.running for m in ended.machines} == {alike}, (world, ended)
    assert not any(machine.waits for machine in ended.machines), (world, ended)
    if world.told:
        assert (world.told == "done") == (alike == NEW), (world, ended)


@pytest.mark.parametrize(
    "budget",
    [Budget(1, 1, 1), Budget(2, 0, 0), *((Budget(2, 2, 1), Budget(3, 1, 1)) if SOAK else ())],
    ids=str,
)
@pytest.mark.timeout(3000)
def test_all_old_or_all_new_whatever_happens(budget: Budget) -> None:
    assert explore(budget) > 500


def test_only_the_coordinator_says_that_there_is_no_decision() -> None:
    silent, unknown = Standing.SILENT, Standing.UNKNOWN
    assert judge({"a": silent, "b": unknown, "c": Standing.ABORTED}, "a") is Verdict.WAIT
    assert judge({"a": silent, "b": Standing.CONFIRMED}, "a") is Verdict.FORWARD
    assert judge({"a": unknown, "b": silent}, "a") is Verdict.BACK
    assert judge({"a": Standing.OPEN, "b": silent}, "a") is Verdict.WAIT


def test_what_was_accepted_meanwhile_is_not_overwritten() -> None:
    seat = Seat(accepted="other", running="other")
    assert seat.to_confirm(ID, NEW) is Reply.LOST
    assert seat.to_adopt(ID, NEW, OLD) is Reply.ANOTHER
    assert seat.to_prepare(ID, OLD) is Reply.ANOTHER
    assert Seat(OLD, OLD, busy=True).to_prepare(ID, OLD) is Reply.BUSY
    waits = Seat(OLD, NEW, ID, "b")
    assert waits.to_abort(ID, "a") is Reply.ANOTHER, "another coordinator has taken over"
