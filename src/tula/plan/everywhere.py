"""A change on all balancers or on none: two-phase commit with presumed abort, as pure decisions.

One balancer, the coordinator, has all take the configuration tentatively (``PREPARE``), records the
decision on its disk (``RECORD``), and has all keep it (``CONFIRM``). Until the decision is on the
disk there is none, and whoever asks the coordinator is told so: then all take the configuration
back (``ABORT``). From there on it holds, whoever dies: it is driven on until each has it.

What runs tentatively is in memory, and gone with its daemon. So to confirm may come too late at a
machine that died in between; it is then given the configuration again (``Reply.LOST``), provided
that what it was meant to replace runs there. A machine that is in doubt, since its time to be
confirmed is over, asks the others (``judge``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum


class Doing(StrEnum):
    """What the coordinator has to do now."""

    PREPARE = "prepare"
    RECORD = "record"
    CONFIRM = "confirm"
    ABORT = "abort"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class JointChange:
    """A change as its coordinator sees it. ``left`` are those that have not answered to what is
    done now; ``refused`` did not take it, and so need not take it back."""

    machines: frozenset[str]
    doing: Doing = Doing.PREPARE
    left: frozenset[str] = frozenset()
    refused: frozenset[str] = frozenset()
    failed: bool = False
    """one refused, or did not answer in time: there will be no decision"""

    def voted(self, machine: str, *, taken: bool, refused: bool = False) -> JointChange:
        """A machine has taken it, has ``refused``, or did not answer (neither)."""
        if self.doing is not Doing.PREPARE or machine not in self.left:
            return self
        left = self.left - {machine}
        found = replace(
            self,
            left=left,
            refused=self.refused | {machine} if refused else self.refused,
            failed=self.failed or not taken,
        )
        if left:
            return found
        return found.abandoned() if found.failed else replace(found, doing=Doing.RECORD)

    def recorded(self, *, done: bool) -> JointChange:
        """The decision is on the disk; or it cannot be brought there, and there is none."""
        if self.doing is not Doing.RECORD:
            return self
        if not done:
            return self.abandoned()
        return replace(self, doing=Doing.CONFIRM, left=self.machines)

    def abandoned(self) -> JointChange:
        """All take it back. Not once it is decided."""
        if self.doing is Doing.CONFIRM:
            return self
        left = self.machines - self.refused
        return replace(self, doing=Doing.ABORT if left else Doing.NOTHING, left=left, failed=True)

    def settled(self, machine: str) -> JointChange:
        """A machine has done what is done now, or needs it no more."""
        if self.doing not in (Doing.CONFIRM, Doing.ABORT):
            return self
        left = self.left - {machine}
        return replace(self, left=left, doing=self.doing if left else Doing.NOTHING)


def begun(machines: frozenset[str]) -> JointChange:
    """A change of these machines, that none has been asked for."""
    return JointChange(machines, left=machines)


def recovered(left: frozenset[str], *, decided: bool) -> JointChange:
    """What a coordinator that has died goes on with, by its disk."""
    doing = Doing.CONFIRM if decided else Doing.ABORT
    return JointChange(left, doing if left else Doing.NOTHING, left, failed=not decided)


class Standing(StrEnum):
    """What a balancer knows of a change."""

    CONFIRMED = "confirmed"
    ABORTED = "aborted"
    """its coordinator said that there is no decision, and will be none"""
    OPEN = "open"
    """it is under way, or waits here as well"""
    UNKNOWN = "unknown"
    """never heard of, or forgotten: of its coordinator, that there is no decision"""
    SILENT = "silent"
    """it cannot be asked, or cannot read what it knew"""


class Verdict(StrEnum):
    """What a machine in doubt does."""

    FORWARD = "forward"
    BACK = "back"
    WAIT = "wait"


def judge(answers: Mapping[str, Standing], coordinator: str) -> Verdict:
    """What follows from what the other balancers know. Only the coordinator can say that there is
    no decision; that there is one, everybody who has heard it."""
    if Standing.CONFIRMED in answers.values():
        return Verdict.FORWARD
    if answers.get(coordinator) in (Standing.ABORTED, Standing.UNKNOWN):
        return Verdict.BACK
    return Verdict.WAIT


class Reply(StrEnum):
    """How a machine answers what it is asked to do."""

    DO = "do"
    DONE = "done"
    """it is so already"""
    LOST = "lost"
    """it knows nothing of it: the daemon ended meanwhile, or did not wait any longer"""
    ANOTHER = "another"
    """another configuration was accepted there meanwhile"""
    BUSY = "busy"
    """something else waits for confirmation there"""
    OVER = "over"
    """it was told already that there will be no decision"""


@dataclass(frozen=True, slots=True)
class Seat:
    """What a machine that takes part has. Configurations are named by their digests."""

    accepted: str
    """what comes back after a crash"""
    running: str
    waits: str = ""
    """the change that waits for confirmation, by its id"""
    coordinator: str = ""
    """whom that one's machine may be told to take it back by"""
    busy: bool = False
    """something else waits for confirmation"""
    outcomes: Mapping[str, Standing] = field(default_factory=dict)
    """what came of the last changes; after a crash, those that were confirmed here may be left"""

    def to_prepare(self, change: str, before: str) -> Reply:
        """Asked to take a configuration tentatively, in place of ``before``."""
        if self.outcomes.get(change) in (Standing.ABORTED, Standing.CONFIRMED):
            return Reply.OVER
        if self.waits == change:
            return Reply.DONE
        if self.waits or self.busy:
            return Reply.BUSY
        return Reply.DO if self.running == before else Reply.ANOTHER

    def to_confirm(self, change: str, digest: str) -> Reply:
        """Asked to keep it."""
        if self.waits == change:
            return Reply.DO
        if self.outcomes.get(change) is Standing.CONFIRMED or self.accepted == digest:
            return Reply.DONE
        return Reply.LOST

    def to_adopt(self, change: str, digest: str, before: str) -> Reply:
        """Given the configuration once more, after it was decided, in place of ``before``."""
        known = self.to_confirm(change, digest)
        if known is not Reply.LOST:
            return known
        if self.waits or self.busy:
            return Reply.BUSY
        return Reply.DO if self.running == before else Reply.ANOTHER

    def to_abort(self, change: str, coordinator: str) -> Reply:
        """Told by a coordinator to take it back."""
        if self.waits == change:
            return Reply.DO if self.coordinator == coordinator else Reply.ANOTHER
        return Reply.DONE

    def standing(self, change: str) -> Standing:
        """What it knows of a change, for one that is in doubt."""
        known = self.outcomes.get(change)
        if known is not None:
            return known
        return Standing.OPEN if self.waits == change else Standing.UNKNOWN
