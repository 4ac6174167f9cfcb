"""The data path as the engine sees it: what moves packets, whatever it is made of.

An implementation keeps its own terms (marks, numbers, generations, devices) to itself. What it
returns is handed back to it and not looked into; a contract suite (tests/contract) holds for all.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tula.model.client_scopes import ClientScope, HeldClient, HeldClients
from tula.model.command import Command
from tula.model.config import Config, IPAddress
from tula.model.desired import DesiredState, SlotTable
from tula.model.flow import Flow, FlowEntry
from tula.model.health import ProbeSocket
from tula.model.problem import Problem
from tula.model.stats import BackendKey, Count, Stats

Revision = int
"""A number that every change of the data path, by anyone, makes another. The kernel tells of
changes by it."""


@dataclass(frozen=True, slots=True)
class ChangeStep:
    """One thing that changes, for people: ``verb`` is add, change or remove."""

    verb: str
    what: str
    name: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Followed:
    """What becomes of a flow in a data path that is not as it should be, and why: the service and
    the backend (``Backend.key``) that get it, None where none does."""

    service: str | None
    backend: str | None
    reason: str


class Memory(Protocol):
    """What the data path wants remembered over restarts. Equal when there is nothing new."""

    def __eq__(self, other: object, /) -> bool: ...


class Observation(Protocol):
    """What the data path held at one revision."""

    @property
    def revision(self) -> Revision: ...

    @property
    def present(self) -> bool:
        """Whether there is anything of Tula's; there is not after a boot."""

    def left_out(self, backends: Iterable[BackendKey], memory: Memory) -> frozenset[BackendKey]:
        """Which of these backends were part of it and get no packets now: they were down."""

    def serving(self, backends: Iterable[BackendKey], memory: Memory) -> frozenset[BackendKey]:
        """Which of these backends get packets now."""

    def refusing(self, backends: Iterable[BackendKey], memory: Memory) -> frozenset[BackendKey]:
        """Which of those get packets of the flows that they have, and no new flows. None where
        flows are not tracked: what serves is not told from what does not, then."""

    def holds_what(self, other: Observation) -> bool:
        """Whether the same is there as in another observation, whatever others changed."""


class PathChange(Protocol):
    """A difference; false when there is none."""

    def __bool__(self) -> bool: ...

    @property
    def memory(self) -> Memory:
        """What must be on the disk before the change is committed."""

    @property
    def parts(self) -> tuple[str, ...]:
        """What it touches, in a word each, such as ``rules``."""

    def steps(self) -> Iterator[ChangeStep]:
        """What it does, in order."""


class Receipt(Protocol):
    """What a commit did; the next difference may start from it, without an observation."""

    @property
    def revision(self) -> Revision | None:
        """The revision that it led to; None when somebody else may have changed something just
        then, so that only an observation tells how things are."""

    @property
    def own(self) -> frozenset[Revision]:
        """The revisions that this commit made, and nobody else."""

    @property
    def memory(self) -> Memory: ...

    @property
    def retired(self) -> Mapping[BackendKey, Count]:
        """What was counted in what is gone with this commit."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What could not be cleaned up afterwards; the next observation finds it again."""

    @property
    def tells_again(self) -> bool:
        """Whether other balancers must know flows by now that they did not have to know before:
        ``share_again`` is called with it, once everything more urgent is done."""


class DataPath(Protocol):
    """One network namespace's. Methods raise KernelError for what the kernel refuses."""

    def dump(self, memory: Memory) -> dict[str, Any]:
        """For JSON; ``recall`` reads it."""

    def recall(self, data: Mapping[str, Any]) -> Memory:
        """What ``dump`` gave; nothing is remembered if that is missing or damaged."""

    def unsupported(self, config: Config, have: Observation | None = None) -> list[Problem]:
        """The services that it cannot carry here, such as for tunnels that the kernel lacks.

        With ``have``, what already works is taken for granted.
        """

    def guard(self) -> None:
        """From the next commit on, and as long as this process lives, packets for a service that
        come past the data path (somebody took its rules away) are not answered by this machine's
        own stack, which would end their connections."""

    def observe(self) -> Observation:
        """Reads all that is there. Raises NewerTableError for what a newer Tula made."""

    def revision(self) -> Revision:
        """What an observation now would have; costs next to nothing."""

    def observe_presence(self) -> Observation:
        """Reads only what it takes to remove all of it, also what a newer Tula made."""

    def removal(self, have: Observation) -> tuple[Command, ...]:
        """What removes all of it, as commands for a machine without Tula; pure."""

    def diff(
        self, have: Observation | Receipt, want: DesiredState | None, memory: Memory
    ) -> PathChange:
        """What turns ``have`` into ``want``; pure. None stands for nothing at all.

        Raises ProblemsError for what there is no room for, and StaleError when ``have`` is a
        receipt that ``want`` is too far from: then only an observation will do.
        """

    def commit(self, change: PathChange, expected: Revision | None) -> Receipt:
        """Makes the change for all packets at once.

        Raises StaleError, and has changed nothing, when the revision is not ``expected`` any
        more; None: whatever it is. Raises KernelError, and all is as it was before.
        """

    def share_again(self, left: Receipt) -> Receipt:
        """Has the other balancers told again, within two seconds, of every flow that they must
        know and that sends packets: one of them has come back and knows none.

        Returns the receipt that takes the place of ``left``, which is ``left`` itself where no
        flows are shared. Raises KernelError. Costs every flow one longer way through the rules:
        not to be called for every packet of bad news.
        """

    def drifted(self, left: Receipt, found: Observation) -> bool:
        """Whether somebody else changed something since ``left``."""

    def stats(self, memory: Memory) -> Stats:
        """What is counted now."""

    def connections(
        self, memory: Memory, limit: float, empty: Collection[BackendKey] = ()
    ) -> Mapping[BackendKey, int] | None:
        """How many connections each backend holds; None when counting takes more than ``limit``
        seconds.

        An estimate, ``Counted``, where there are too many to count each. Of ``empty`` it is then
        certain whether they hold any, as far as that can be found in ``limit`` seconds.

        TCP connections whose client said neither FIN nor RST, half-open ones among them, and UDP
        flows: what a drain waits for.
        """

    def look_up(self, flow: Flow, memory: Memory, datagram: int | None = None) -> FlowEntry | None:
        """What is held for a flow, or for one datagram's fragments by its identification."""

    def clients(self, scopes: Sequence[ClientScope], memory: Memory, limit: int) -> HeldClients:
        """The persistent clients of these scopes, in no order, at most ``limit`` of each scope.

        What it costs does not grow with how many there are beyond those.
        """

    def forget_clients(
        self, scopes: Sequence[ClientScope], client: IPAddress | None, memory: Memory
    ) -> int | None:
        """Forgets what these scopes hold for a client's address, or for all clients.

        Flows that there are stay; new ones choose as a new client's do. Returns how many entries
        that were, None where the data path does not tell. Packets may make new ones meanwhile.
        """

    def look_up_client(
        self, scope: ClientScope, client: IPAddress, memory: Memory
    ) -> HeldClient | None:
        """The entry of the persistent client that an address belongs to, if there is one."""

    def follow(
        self, have: Observation, change: PathChange, flow: Flow, entry: FlowEntry | None
    ) -> Followed:
        """Where a flow goes now, in ``have``, from which ``change`` would lead to what is wanted;
        pure. ``entry`` is what is held for it."""

    def choose(self, table: SlotTable, flow: Flow, seed: int, *, by_client: bool) -> int:
        """The slot that a flow without an entry falls into; pure."""

    def probe_socket(self, service: str, backend: str, memory: Memory) -> ProbeSocket:
        """How a probe names the backend (by ``Backend.key``) that it is for; pure."""
