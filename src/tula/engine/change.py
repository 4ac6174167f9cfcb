"""What a change of this machine is made of: before it is made, and after."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from tula.dataplane.port import ChangeStep, Observation, PathChange, Receipt
from tula.model.config import Config, IPAddress
from tula.model.health import BackendName
from tula.model.host import HostView
from tula.model.problem import Problem
from tula.plan.desired import Plan
from tula.plan.forwarders import forwarders
from tula.plan.routes import Routes
from tula.vip.owner import VipPlan


@dataclass(frozen=True, slots=True)
class Change:
    """What stands between the machine and a configuration; false when nothing does."""

    path: PathChange | None = None
    vips: VipPlan = field(default_factory=lambda: VipPlan({}))
    warnings: tuple[Problem, ...] = ()
    """what this machine's network will do to it"""

    def __bool__(self) -> bool:
        return bool(self.path) or bool(self.vips)

    @property
    def parts(self) -> tuple[str, ...]:
        """What it touches, in a word each."""
        return (
            *(self.path.parts if self.path is not None else ()),
            *(("addresses",) if self.vips else ()),
        )

    def steps(self) -> Iterator[ChangeStep]:
        """What it does, for people."""
        yield from self.vips.steps(before=True)
        if self.path is not None:
            yield from self.path.steps()
        yield from self.vips.steps(before=False)


@dataclass(frozen=True, slots=True)
class Applied:
    """What the kernel was brought to, and by what.

    ``config`` is the configuration as far as this machine has what it names, with its own weights;
    ``unreachable`` are the backends that no route leads to.
    """

    config: Config
    host: HostView
    routes: Routes
    plan: Plan
    receipt: Receipt
    unreachable: frozenset[BackendName] = frozenset()
    forwarders: tuple[IPAddress, ...] = ()
    """the balancers whose MAC addresses matter"""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, and what stood in the way of the rest.

    ``problems`` are of an accepted configuration that this machine lacks something for.
    ``warnings`` came up after the change was made: it counts, and what is left is tried again.
    ``unsaved`` says why something could not be remembered on disk; traffic does not need it.
    """

    change: Change
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()
    unsaved: str = ""
    drifted: bool = False
    """Rules, addresses, tunnels or the routes to backends were not as this process left them."""
    heard: bool = False
    """A balancer that forwards to this machine has another MAC address than before."""
    committed: float | None = None
    """when the kernel had it, by time.monotonic"""
    incomplete: bool = False
    """some of the problems may be gone the next time that it is tried"""

    def __bool__(self) -> bool:
        """Whether anything changed."""
        return bool(self.change)


@dataclass(frozen=True, slots=True)
class Prepared:
    """A change that is planned and not made; ``have`` is the data path before it."""

    change: Change
    path: PathChange
    have: Observation
    config: Config
    host: HostView
    routes: Routes
    plan: Plan
    problems: tuple[Problem, ...] = ()
    unreachable: frozenset[BackendName] = frozenset()
    incomplete: bool = False
    """an interface did not take a VIP"""

    def applied(self, receipt: Receipt) -> Applied:
        """What is left once it is made."""
        return Applied(
            *(self.config, self.host, self.routes, self.plan, receipt, self.unreachable),
            forwarders(self.config, self.host),
        )


def routes_moved(left: Applied, found: Prepared) -> bool:
    """Whether the interfaces or the routes to backends are not as they had been."""
    mine, now = (
        (each.config.interfaces, each.routes.hops, each.routes.endpoints, each.routes.vips)
        for each in (left, found)
    )
    return mine != now


def has_heard(left: Applied, found: Prepared) -> bool:
    """Whether balancers that forward to this machine have other MAC addresses than they had."""
    return left.plan.state.forwarders != found.plan.state.forwarders
