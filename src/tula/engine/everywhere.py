"""Changes on all balancers: what is asked of each, what each answers, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from tula.model.health import BackendName
from tula.plan.everywhere import Standing


@dataclass(frozen=True, slots=True)
class Joint:
    """The change that a tentative configuration belongs to. ``grace`` is how many seconds after
    its time to be confirmed the machine may still ask what was decided."""

    id: str
    coordinator: str
    grace: float = 0.0


@dataclass(frozen=True, slots=True)
class Change:
    """A change of the configuration on all balancers; ``by`` is who asked its coordinator."""

    id: str
    coordinator: str
    by: str
    how: str
    force: bool = False
    yes: bool = False


class Trouble(StrEnum):
    """Why a machine has not done what it was asked."""

    UNREACHABLE = "unreachable"
    CONFIGURATION = "configuration"
    """problems of the configuration, with their places"""
    REFUSED = "refused"
    NO_SUCH_BACKEND = "no-such-backend"
    LOSS = "loss"
    SOURCE = "source"
    ANOTHER = "another"
    """another configuration runs there"""
    LOST = "nothing-to-confirm"
    FAILED = "failed"


class MemberError(Exception):
    """A machine has not done it. ``errors`` are as the API answers them: ``message``, and of a
    configuration's problem its place."""

    def __init__(self, trouble: Trouble, errors: Iterable[Mapping[str, Any]]) -> None:
        self.trouble = trouble
        self.errors = tuple(dict(error) for error in errors)
        super().__init__("; ".join(str(error["message"]) for error in self.errors))

    @property
    def refused(self) -> bool:
        """Whether it is certain that nothing has changed there."""
        return self.trouble not in (Trouble.UNREACHABLE, Trouble.FAILED)


class JointError(Exception):
    """A change was not made on all balancers: ``machines`` tells how each stands. ``trouble`` is
    the worst of what they said, ``nothing`` whether nothing was changed anywhere."""

    def __init__(self, trouble: Trouble, machines: tuple[Told, ...], *, nothing: bool) -> None:
        self.trouble = trouble
        self.machines = machines
        self.nothing = nothing
        super().__init__("; ".join(f"{told.machine}: {told.why}" for told in machines if told.why))


def trouble(kind: Trouble, message: str) -> MemberError:
    """The error of one line."""
    return MemberError(kind, [{"message": message}])


@dataclass(frozen=True, slots=True)
class Prepared:
    """What a machine answers that takes a configuration, or would: the digest of the one that it
    replaces, and what changes."""

    before: str
    changed: bool = False
    summary: tuple[str, ...] = ()
    warnings: tuple[Mapping[str, Any], ...] = ()


@dataclass(frozen=True, slots=True)
class Override:
    """An operator's command about a backend; ``body`` is the API's."""

    verb: str
    backend: BackendName
    body: Mapping[str, Any] | None
    by: str
    yes: bool = False


class Member(Protocol):
    """One balancer, as another or itself asks it. All raise MemberError."""

    async def prepare(
        self, change: Change, text: bytes, before: str | None, seconds: float, *, dry: bool
    ) -> Prepared:
        """Takes a configuration, in place of the one with the digest ``before``, tentatively: for
        ``seconds``, after which it asks what was decided. ``dry``: says what that would do."""

    async def hold(self, change: str, coordinator: str, seconds: float) -> str:
        """Waits that long at least for another coordinator's decision. The digest of what comes
        back otherwise."""

    async def confirm(self, change: Change, digest: str) -> None:
        """Keeps what it has taken; Trouble.LOST if it does not have that any more."""

    async def adopt(self, change: Change, text: bytes, before: str) -> None:
        """Accepts at once what was decided, in place of ``before``."""

    async def abort(self, change: str, coordinator: str, why: str) -> None:
        """Takes it back: there is no decision, and will be none."""

    async def standing(self, change: str) -> Standing:
        """What it knows of a change."""

    async def override(self, order: Override, *, dry: bool) -> Mapping[str, Any]:
        """Carries out the command: the backend before and after, as the API has it."""


class Result(StrEnum):
    """How one machine stands in the end."""

    WOULD = "would"
    """it would take it: nothing has changed"""
    DONE = "done"
    WAITS = "waits"
    """it runs, and goes back unless it is confirmed"""
    REFUSED = "refused"
    UNREACHABLE = "unreachable"
    FAILED = "failed"
    TAKEN_BACK = "taken-back"
    PENDING = "pending"
    """it gets it when it is back"""
    LEFT = "left"
    """another configuration was accepted there meanwhile, and stays"""
    LEFT_OUT = "left-out"
    """it cannot be reached, and all the others were meant"""


@dataclass(frozen=True, slots=True)
class Told:
    """What came of it on one machine."""

    machine: str
    result: Result
    errors: tuple[Mapping[str, Any], ...] = ()
    summary: tuple[str, ...] = ()
    warnings: tuple[Mapping[str, Any], ...] = ()
    override: Mapping[str, Any] | None = None
    """the backend before and after"""

    @property
    def why(self) -> str:
        """The errors in a line."""
        return "; ".join(str(error["message"]) for error in self.errors)


@dataclass(frozen=True, slots=True)
class JointOutcome:
    """What came of a change. ``digest`` is the configuration's."""

    machines: tuple[Told, ...]
    change: str = ""
    digest: str = ""
    dry: bool = False
    confirm: float | None = None
    """seconds to confirm in, where it waits for that"""

    @property
    def done(self) -> bool:
        """Whether nothing is left to be done on any machine that was meant."""
        open_ends = (Result.PENDING, Result.LEFT, Result.FAILED, Result.UNREACHABLE)
        return not any(told.result in open_ends for told in self.machines)


@dataclass(frozen=True, slots=True)
class Asked:
    """How a change of the configuration is asked for on all balancers. ``reachable``: of those
    that answer; ``network``: new content from the network; ``match`` as If-Match."""

    by: str
    how: str = "apply everywhere"
    force: bool = False
    yes: bool = False
    confirm: float | None = None
    dry: bool = False
    reachable: bool = False
    network: bool = False
    match: frozenset[str] | None = None


class JointControl(Protocol):
    """The daemon as one of several balancers. What is asked of all may raise JointError."""

    async def apply(self, text: bytes | None, asked: Asked) -> JointOutcome:
        """A configuration on all balancers or on none; None: that of this daemon's file. With
        ``confirm``, all go back unless ``confirm`` is asked for in that time. Raises
        ConditionError."""

    async def confirm(self, by: str, *, dry: bool = False) -> JointOutcome:
        """Keeps on all what waits on all. Raises NothingToConfirmError, RefusedError."""

    async def rollback(self, what: int | str | None, asked: Asked) -> JointOutcome:
        """An accepted configuration again, on all; by its number here, its digest or the beginning
        of that. None: what waits on all is taken back, else the one before. Raises RefusedError.
        """

    async def override(self, order: Override, *, dry: bool, reachable: bool) -> JointOutcome:
        """Drains, weighs and their like, on all."""

    async def prepare(
        self, change: Change, text: bytes, before: str | None, seconds: float, *, dry: bool
    ) -> Prepared:
        """Another balancer asks this one to take a configuration, as ``Member.prepare``. Like the
        rest of what balancers ask each other, it raises MemberError and ControlError."""

    async def hold(self, change: str, coordinator: str, seconds: float) -> str:
        """As ``Member.hold``."""

    async def keep(self, change: Change, digest: str) -> None:
        """As ``Member.confirm``."""

    async def adopt(self, change: Change, text: bytes, before: str) -> None:
        """As ``Member.adopt``."""

    async def abort(self, change: str, coordinator: str, why: str) -> None:
        """As ``Member.abort``."""

    async def standing(self, change: str) -> Standing:
        """What this balancer knows of a change, as its coordinator or not."""


@dataclass(frozen=True, slots=True)
class Members:
    """All balancers; ``own`` is the name of this one."""

    own: str
    of: Mapping[str, Member] = field(default_factory=dict)
