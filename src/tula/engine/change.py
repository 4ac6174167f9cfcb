"""What a change of this machine is made of: before it is made, and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tula.dataplane.nft.ruleset import Ruleset
from tula.dataplane.nft.shape import Shaped
from tula.dataplane.nft.transaction import Transaction
from tula.dataplane.tunnels import TunnelChange
from tula.engine.store import Memory
from tula.model.config import Config
from tula.model.desired import OwnedAddress
from tula.model.health import BackendName
from tula.model.host import HostView
from tula.model.ids import Ids
from tula.model.problem import Problem
from tula.model.tunnel import TunnelDevice
from tula.plan.adjust import Planned
from tula.plan.reach import Reach


@dataclass(frozen=True, slots=True)
class Change:
    """What stands between the machine and a document."""

    transaction: Transaction = ()
    add: tuple[OwnedAddress, ...] = ()
    remove: tuple[OwnedAddress, ...] = ()
    tunnels: TunnelChange = field(default_factory=TunnelChange)
    devices: Mapping[str, TunnelDevice | None] = field(default_factory=dict)
    """Tula's tunnel devices, those before the change and those after it."""

    def __bool__(self) -> bool:
        return bool(self.transaction or self.add or self.remove or self.tunnels)


@dataclass(frozen=True, slots=True)
class Applied:
    """What the kernel was brought to, and by what.

    ``config`` is the document as far as this machine has what it names, with its own weights;
    ``absent`` are the backends that no way leads to. ``generations`` are nftables' during the
    change, and after it.
    """

    config: Config
    host: HostView
    reach: Reach
    ids: Ids
    planned: Planned
    shaped: Shaped
    absent: frozenset[BackendName] = frozenset()
    generations: tuple[int, ...] = (0,)

    @property
    def generation(self) -> int:
        """nftables' after it."""
        return self.generations[-1]


@dataclass(frozen=True, slots=True)
class Repair:
    """What was done for a document that was accepted before, and what stood in the way.

    ``unsaved`` says why something could not be remembered on disk; traffic does not need it.
    """

    change: Change
    problems: tuple[Problem, ...] = ()
    unsaved: str = ""
    drifted: bool = False
    """Rules, addresses, tunnels or the ways to backends were not as this process left them."""
    committed: float | None = None
    """when the kernel had it, by time.monotonic"""
    warnings: tuple[str, ...] = ()
    """What failed after it was made, and has to be tried again."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """A change that is planned and not made. ``have`` is the table before it."""

    change: Change
    memory: Memory
    applied: Applied
    problems: tuple[Problem, ...] = ()
    have: Ruleset | None = None


def owned_addresses(host: HostView) -> tuple[OwnedAddress, ...]:
    """The VIPs that Tula has put on this machine."""
    return tuple(
        OwnedAddress(held.address.ip, held.interface) for held in host.addresses if held.ours
    )


def has_drifted(left: Applied, found: Prepared) -> bool:
    """Whether the kernel or the ways were not as they had been left."""
    change, now = found.change, found.applied
    ways = [
        (each.config.interfaces, each.reach.hops, each.reach.outers, each.reach.addresses)
        for each in (left, now)
    ]
    moved = bool(change.add or change.remove or change.tunnels)
    return moved or found.have != left.shaped.ruleset or ways[0] != ways[1]
