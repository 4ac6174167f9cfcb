"""VIPs that BIRD announces to routers, on every balancer that serves them.

A VIP stands as a route in the kernel's table 84, whose metric says how well it is served; BIRD
reads the table by itself. So what is announced outlives the daemon, and shows in the kernel.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tula.dataplane.port import ChangeStep
from tula.kernel.engines import Engine
from tula.kernel.vip_routes import TABLE, VipRoute, VipRoutes, VipTable
from tula.model.announcing import Announcing
from tula.model.bgp import BgpSessionState
from tula.model.command import Command, command
from tula.model.config import IPAddress
from tula.model.desired import DesiredVip
from tula.model.errors import KernelError
from tula.model.host import HostView
from tula.vip.bird import LAST_RESORT, SERVED, WITHHELD, render_bird
from tula.vip.bird_control import CONTROL, BirdControl
from tula.vip.generated import EngineChange, GeneratedEngine

_METRICS = (SERVED, LAST_RESORT, WITHHELD)
_HEARD = 0.3
"""Seconds within which routers have taken a route away that was withdrawn: BIRD is told by the
kernel, and sends at once; routers were seen to do it within 0.15 s."""


@dataclass(frozen=True, slots=True)
class BgpChange:
    """VIPs that come, routes that go, and BIRD's file; ``correct`` are VIPs whose route does not
    say how well they are served."""

    add: tuple[IPAddress, ...] = ()
    remove: tuple[VipRoute, ...] = ()
    correct: tuple[IPAddress, ...] = ()
    engine: EngineChange = field(default_factory=EngineChange)

    def __bool__(self) -> bool:
        return bool(self.add or self.remove or self.correct or self.engine)

    def steps(self, *, before: bool) -> list[ChangeStep]:
        table = f"in table {TABLE}"
        found = [
            *(ChangeStep("add", "route", str(vip), table) for vip in self.add if before),
            *(ChangeStep("change", "route", str(vip), table) for vip in self.correct if not before),
        ]
        if not before:
            gone = sorted({route.vip for route in self.remove}, key=str)
            found += [ChangeStep("remove", "route", str(vip), table) for vip in gone]
        return found + self.engine.steps(before=before)


class BgpVips:
    """BIRD and its table in one network namespace."""

    def __init__(
        self,
        engine: Engine,
        routes: VipRoutes,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._engine = engine
        self._kept = GeneratedEngine(engine)
        self._routes = routes
        self._sleep = sleep
        self._metrics: dict[IPAddress, int] | None = None
        """What each VIP's route is to say; None until it was told what is served."""
        self._silent: set[IPAddress] = set()
        """Taken, and not announced yet."""

    def unsupported(self, wanted: Sequence[DesiredVip], announcing: Announcing | None) -> list[str]:
        if announcing is None:
            return (
                [
                    "this machine has none of the addresses of load_balancers, so nobody here may "
                    "announce VIPs by BGP; add it there"
                ]
                if wanted
                else []
            )
        missing = self._engine.missing() if announcing.bgp is not None else ""
        return [f"bgp: {missing}"] if missing else []

    def diff(
        self,
        host: HostView,  # noqa: ARG002
        wanted: Sequence[DesiredVip],
        announcing: Announcing | None,
    ) -> BgpChange:
        if self.unsupported(wanted, announcing):
            return BgpChange()
        table = self._routes.read()
        held = _by_vip(table)
        want = [vip.address for vip in wanted]
        listed = set(want)
        bgp = announcing.bgp if announcing is not None else None
        return BgpChange(
            add=tuple(vip for vip in want if vip not in held),
            remove=_sorted(route for route in table.routes if route.vip not in listed),
            correct=tuple(
                vip
                for vip in want
                if vip in held and self._metrics is not None and vip in self._metrics
                if held[vip] != {self._metrics[vip]}
            ),
            engine=self._kept.diff(render_bird(bgp) if bgp is not None else None),
        )

    def take(self, change: BgpChange) -> tuple[BgpChange, list[str]]:
        """New VIPs stand in the table, and routers are not told of them. Of those that go, routers
        are told now, while their packets still find their rules."""
        refused = self._kept.take(change.engine)
        if refused:
            change = replace(change, engine=EngineChange())
        add = [VipRoute(vip, WITHHELD) for vip in change.add]
        add += [VipRoute(route.vip, WITHHELD) for route in change.remove]
        failures = self._routes.change(add, _announced(change.remove))
        self._silent.update(change.add)
        if _announced(change.remove) and self._engine.runs():
            self._sleep(_HEARD)
        return change, refused + failures

    def serve(
        self, wanted: Sequence[DesiredVip], served: Mapping[str, bool], standby: bool
    ) -> list[str]:
        self._metrics = {vip.address: _metric(vip, served, standby) for vip in wanted}
        try:
            return self._say(self._routes.read())
        except KernelError as error:
            return [str(error)]

    def announce(self, host: HostView) -> list[str]:  # noqa: ARG002
        self._silent.clear()
        try:
            table = self._routes.read()
        except KernelError as error:
            return [str(error)]
        return [*self._say(table), *self._strangers(table)]

    def announce_again(self, host: HostView) -> list[str]:  # noqa: ARG002
        """Sessions are reliable."""
        return []

    def release(self, change: BgpChange) -> list[str]:
        gone = {route.vip for route in change.remove}
        self._silent -= gone
        routes = (VipRoute(vip, metric) for vip in sorted(gone, key=str) for metric in _METRICS)
        return self._routes.change((), [*change.remove, *routes])

    def settle(self, change: BgpChange) -> list[str]:
        return self._kept.settle(change.engine)

    def undo(self, change: BgpChange) -> None:
        self._silent -= set(change.add)
        withheld = {VipRoute(route.vip, WITHHELD) for route in change.remove}
        withheld -= set(change.remove)
        new = [VipRoute(vip, WITHHELD) for vip in change.add]
        self._routes.change(change.remove, [*new, *_sorted(withheld)])

    def hold(self) -> None:
        self._kept.hold()

    def let_go(self) -> list[str]:
        return self._kept.let_go()

    def revive(self) -> list[str]:
        return self._kept.revive()

    def removal(self) -> list[Command]:
        routes = _sorted(self._routes.read().routes)
        return [
            *self._kept.removal(),
            *(
                command(
                    f"ip -{route.vip.version} route del blackhole {route.vip} table {TABLE} "
                    f"proto {TABLE} metric {route.metric}"
                )
                for route in routes
            ),
        ]

    def sessions(self) -> list[BgpSessionState]:
        """As BIRD says; none when it does not run."""
        try:
            return BirdControl(self._engine.place.with_name(CONTROL)).sessions()
        except KernelError:
            return []

    def _say(self, table: VipTable) -> list[str]:
        """Has each route say how well its VIP is served."""
        held, add, remove = _by_vip(table), [], []
        for vip, metric in (self._metrics or {}).items():
            if vip in self._silent:
                continue
            found = held.get(vip, set())
            add += [VipRoute(vip, metric)] if metric not in found else []
            remove += [VipRoute(vip, other) for other in sorted(found - {metric})]
        return self._routes.change(add, remove)

    def _strangers(self, table: VipTable) -> list[str]:
        """Others' routes are left alone. BIRD announces none of them, but of two routes to one
        VIP it sees only that with the lower metric."""
        if not table.foreign or not self._metrics:
            return []
        first = min(table.foreign, key=str)
        return [
            f"routing table {TABLE} is Tula's for BGP, and {len(table.foreign)} of its routes are "
            f"not (such as {first}); they may hide VIPs: use another table for them"
        ]


def _metric(vip: DesiredVip, served: Mapping[str, bool], standby: bool) -> int:
    found = [served.get(name, False) for name in vip.services]
    if not any(found):
        return WITHHELD
    return LAST_RESORT if standby or not all(found) else SERVED


def _announced(routes: Iterable[VipRoute]) -> list[VipRoute]:
    return [route for route in routes if route.metric != WITHHELD]


def _sorted(routes: Iterable[VipRoute]) -> tuple[VipRoute, ...]:
    return tuple(sorted(routes, key=lambda route: (route.vip.version, route.vip, route.metric)))


def _by_vip(table: VipTable) -> dict[IPAddress, set[int]]:
    found: dict[IPAddress, set[int]] = {}
    for route in table.routes:
        found.setdefault(route.vip, set()).add(route.metric)
    return found
