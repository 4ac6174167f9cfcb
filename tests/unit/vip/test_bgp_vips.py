"""BGP's VIPs: what stands in the table at each step, and what routers can see of it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import IPv4Address, ip_address, ip_network

from tula.kernel.engines import BIRD, FakeEngine
from tula.kernel.fake import FakeVipRoutes
from tula.kernel.vip_routes import VipRoute, VipTable
from tula.model.announcing import Announcing
from tula.model.bgp import BgpSession, DesiredBgp
from tula.model.config import IPAddress
from tula.model.desired import Announce, DesiredVip
from tula.model.high_availability import Bgp, HighAvailability
from tula.model.host import HostView
from tula.vip.bgp import BgpVips
from tula.vip.bird import LAST_RESORT, SERVED, WITHHELD

OWN, ROUTER = ip_address("10.0.0.2"), ip_address("10.0.0.1")
WEB, DNS = ip_address("10.77.0.1"), ip_address("fd77::2")
HOST = HostView()


def vip(address: IPAddress, *services: str) -> DesiredVip:
    return DesiredVip(address, "", services, Announce.BGP)


WEB_VIP, DNS_VIP = vip(WEB, "http", "https"), vip(DNS, "dns")
ALL = {"http": True, "https": True, "dns": True}


def announcing(*routers: IPAddress) -> Announcing:
    sessions = tuple(
        BgpSession(router, 65000, OWN, "eth0", ((4, None),)) for router in routers or (ROUTER,)
    )
    settings = HighAvailability(bgp=Bgp(65001, ((ROUTER, 65000),)))
    bgp = DesiredBgp(IPv4Address("10.0.0.2"), 65001, 0.3, sessions)
    return Announcing(settings, "lb1", OWN, "eth0", (), bgp=bgp)


@dataclass
class Scene:
    """An owner, its table and its engine."""

    routes: FakeVipRoutes = field(default_factory=FakeVipRoutes)
    engine: FakeEngine = field(default_factory=lambda: FakeEngine(BIRD))
    waited: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.vips = BgpVips(self.engine, self.routes, self.waited.append)

    def restart(self) -> None:
        """Another process in its place."""
        self.vips = BgpVips(self.engine, self.routes, self.waited.append)

    @property
    def table(self) -> dict[IPAddress, set[int]]:
        found: dict[IPAddress, set[int]] = {}
        for route in self.routes.table.routes:
            found.setdefault(route.vip, set()).add(route.metric)
        return found

    def apply(
        self, *wanted: DesiredVip, to: Announcing | None = None, standby: bool = False
    ) -> list[str]:
        with self.committing(*wanted, to=to, standby=standby) as told:
            pass
        return told

    @contextmanager
    def committing(
        self, *wanted: DesiredVip, to: Announcing | None = None, standby: bool = False
    ) -> Iterator[list[str]]:
        """As the balancer does it; inside, the data path changes."""
        told: list[str] = []
        change, failures = self.vips.take(self.vips.diff(HOST, wanted, to or announcing()))
        assert failures == []
        yield told
        told += self.vips.serve(wanted, ALL, standby)
        told += self.vips.announce(HOST)
        told += self.vips.release(change)
        told += self.vips.settle(change)


def test_a_new_vip_is_told_when_the_data_path_is_ready() -> None:
    scene = Scene()
    with scene.committing(WEB_VIP):
        assert scene.table == {WEB: {WITHHELD}}
        assert not scene.engine.alive
    assert scene.table == {WEB: {SERVED}}
    assert scene.engine.alive
    with scene.committing(WEB_VIP, DNS_VIP):
        assert scene.table == {WEB: {SERVED}, DNS: {WITHHELD}}
    assert scene.table == {WEB: {SERVED}, DNS: {SERVED}}
    assert scene.engine.calls == ["start"]
    assert not scene.vips.diff(HOST, [WEB_VIP, DNS_VIP], announcing())


def test_what_goes_is_withdrawn_while_it_still_has_its_rules() -> None:
    scene = Scene()
    scene.apply(WEB_VIP, DNS_VIP)
    assert scene.waited == []
    with scene.committing(DNS_VIP):
        assert scene.table == {WEB: {WITHHELD}, DNS: {SERVED}}
        assert len(scene.waited) == 1
    assert scene.table == {DNS: {SERVED}}


def test_the_metric_says_how_well_a_vip_is_served() -> None:
    scene = Scene()
    wanted = [WEB_VIP, DNS_VIP]
    scene.apply(*wanted)
    scene.vips.serve(wanted, ALL | {"https": False}, standby=False)
    assert scene.table == {WEB: {LAST_RESORT}, DNS: {SERVED}}
    scene.vips.serve(wanted, ALL | {"http": False, "https": False}, standby=False)
    assert scene.table == {WEB: {WITHHELD}, DNS: {SERVED}}
    scene.vips.serve(wanted, ALL | {"dns": False}, standby=True)
    assert scene.table == {WEB: {LAST_RESORT}, DNS: {WITHHELD}}
    assert not scene.vips.diff(HOST, wanted, announcing())
    scene.vips.serve(wanted, ALL, standby=False)
    assert scene.table == {WEB: {SERVED}, DNS: {SERVED}}


def test_another_process_finds_all_as_it_should_be() -> None:
    scene = Scene()
    scene.apply(WEB_VIP, DNS_VIP, standby=True)
    scene.restart()
    assert not scene.vips.diff(HOST, [WEB_VIP, DNS_VIP], announcing())
    assert scene.vips.announce(HOST) == []
    assert scene.table == {WEB: {LAST_RESORT}, DNS: {LAST_RESORT}}


def test_what_somebody_changed_is_put_right() -> None:
    scene = Scene()
    scene.apply(WEB_VIP, DNS_VIP)
    wrong = {VipRoute(WEB, SERVED), VipRoute(WEB, LAST_RESORT), VipRoute(DNS, 7)}
    scene.routes.table = VipTable(frozenset(wrong))
    change = scene.vips.diff(HOST, [WEB_VIP, DNS_VIP], announcing())
    assert set(change.correct) == {WEB, DNS}
    scene.apply(WEB_VIP, DNS_VIP)
    assert scene.table == {WEB: {SERVED}, DNS: {SERVED}}
    scene.routes.table = VipTable()
    scene.apply(WEB_VIP, DNS_VIP)
    assert scene.table == {WEB: {SERVED}, DNS: {SERVED}}


def test_undone_it_is_as_it_was() -> None:
    scene = Scene()
    scene.apply(WEB_VIP)
    before = scene.routes.table
    change, _ = scene.vips.take(scene.vips.diff(HOST, [DNS_VIP], announcing()))
    scene.vips.undo(change)
    assert scene.routes.table == before


def test_nothing_is_left() -> None:
    scene = Scene()
    scene.apply(WEB_VIP, DNS_VIP)
    change, _ = scene.vips.take(scene.vips.diff(HOST, (), None))
    scene.vips.release(change)
    scene.vips.settle(change)
    assert scene.table == {}
    assert not scene.engine.alive
    assert scene.engine.files == {}
    assert not scene.vips.diff(HOST, (), None)


def test_a_machine_without_tula_can_remove_the_routes() -> None:
    scene = Scene()
    assert scene.vips.removal() == []
    scene.apply(WEB_VIP, DNS_VIP)
    assert [str(each) for each in scene.vips.removal()][-2:] == [
        "ip -4 route del blackhole 10.77.0.1 table 84 proto 84 metric 100",
        "ip -6 route del blackhole fd77::2 table 84 proto 84 metric 100",
    ]


def test_another_router_is_told_to_bird_and_moves_no_route() -> None:
    scene = Scene()
    scene.apply(WEB_VIP)
    scene.apply(WEB_VIP, to=announcing(ROUTER, ip_address("10.0.0.9")))
    assert scene.engine.calls == ["start", "reload"]
    assert "10.0.0.9" in scene.engine.files[BIRD.file]
    assert scene.table == {WEB: {SERVED}}


def test_others_routes_are_told_and_stay() -> None:
    scene = Scene()
    foreign = (ip_network("192.0.2.0/24"),)
    scene.routes.table = VipTable(foreign=foreign)
    (told,) = scene.apply(WEB_VIP)
    assert "192.0.2.0/24" in told
    assert scene.routes.table.foreign == foreign


def test_what_is_missing_is_told() -> None:
    scene = Scene(engine=FakeEngine(BIRD, absent=True))
    assert scene.vips.unsupported([WEB_VIP], announcing())
    assert not scene.vips.diff(HOST, [WEB_VIP], announcing())
    scene.engine.absent = False
    assert "load_balancers" in scene.vips.unsupported([WEB_VIP], None)[0]
    assert scene.vips.unsupported([], None) == []
