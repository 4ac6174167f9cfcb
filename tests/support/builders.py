"""Documents, machines and balancers for tests, without any kernel."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_interface
from pathlib import Path

from hypothesis import strategies as st

from tula.dataplane.nft.build import build_ruleset
from tula.dataplane.nft.ids import Ids
from tula.dataplane.nft.number import number_state
from tula.dataplane.nft.numbered import NumberedState
from tula.dataplane.nft.numbering import plan_ids
from tula.dataplane.nft.ruleset import Ruleset
from tula.engine.assemble import Engines, vip_owners
from tula.engine.balancer import Balancer
from tula.engine.reader import Adapters
from tula.engine.store import Store
from tula.kernel.clock import SystemClock
from tula.kernel.engines import BIRD, KEEPALIVED, FakeEngine
from tula.kernel.failures import Failures
from tula.kernel.fake import (
    FakeAnnouncer,
    FakeNetwork,
    FakeProbeRoute,
    FakeSysctls,
    FakeTunnels,
    FakeVipRoutes,
)
from tula.kernel.fake_nftables import FakeNftables
from tula.kernel.nft_data_path import NftDataPath
from tula.kernel.nft_memory import recall_ids
from tula.model.config import (
    Affinity,
    Backend,
    Config,
    Forwarding,
    PortRange,
    Protocol,
    Scheduler,
    Tunnel,
    VirtualService,
)
from tula.model.desired import DesiredState
from tula.model.flow import Flow, FlowEntry
from tula.model.high_availability import HighAvailability, SharedFlows, Vrrp
from tula.model.host import HostAddress, HostView, Link, Route
from tula.model.monitor import HealthMonitor, TcpProbe
from tula.plan.backend_status import NO_SHARES
from tula.plan.desired import plan_desired
from tula.plan.routes import backend_addresses, plan_routes
from tula.plan.trace import Trace, plan_trace

MACS = {"eth0": bytes.fromhex("020000000001"), "eth1": bytes.fromhex("020000000002")}


def make_backend(number: int, weight: int = 100, *, dual: bool = True) -> Backend:
    """Backend N: ``b<N>`` at 10.0.0.(N+10), and 2001:db8::(N+10) if dual."""
    addresses = [ip_address(f"10.0.{number // 200}.{number % 200 + 10}")]
    if dual:
        addresses.append(ip_address(f"2001:db8::{number + 10:x}"))
    return Backend(f"b{number}", tuple(addresses), weight)


def make_service(
    name: str = "web",
    vips: Iterable[str] = ("10.0.0.100",),
    ports: Iterable[PortRange] = (PortRange(80, 80),),
    backends: Iterable[Backend] = (),
    protocols: Iterable[Protocol] = (Protocol.TCP,),
    scheduler: Scheduler = Scheduler.MAGLEV,
    affinity: Affinity = Affinity.CONNECTION,
    announce: bool | str = True,
    tunnel: Tunnel | None = None,
    health: Iterable[HealthMonitor] = (),
) -> VirtualService:
    """A service; one port of TCP on an IPv4 VIP unless told otherwise; l2 without a tunnel."""
    return VirtualService(
        name=name,
        vips=tuple(map(ip_address, vips)),
        protocols=tuple(protocols),
        ports=tuple(ports),
        forwarding=Forwarding.L3 if tunnel else Forwarding.L2,
        tunnel=tunnel or Tunnel.IPIP,
        backends=tuple(backends),
        scheduler=scheduler,
        affinity=affinity,
        announce=announce,
        health=tuple(health),
    )


def make_config(*services: VirtualService, interfaces: Iterable[str] = ("eth0",)) -> Config:
    """A configuration of these services."""
    return Config(interfaces=tuple(interfaces), services=services)


def make_shared(config: Config, flows: SharedFlows = SharedFlows.MOVED, peers: int = 1) -> Config:
    """The same, on one of several balancers, which know each other's flows."""
    others = [(f"lb{n}", ip_address(f"10.0.0.{n + 1}")) for n in range(2, 2 + peers)]
    return replace(
        config,
        load_balancers=(("lb1", ip_address("10.0.0.2")), *others),
        high_availability=HighAvailability(vrrp=Vrrp(84), flows=flows),
    )


def make_host(config: Config, *, second: Iterable[str] = ()) -> HostView:
    """A balancer with eth0 (10.0.0.2/16, 2001:db8::2/64) and eth1 (10.1.0.2/24, 2001:db8:1::2/64).

    Every backend is on-link: on eth1 those whose address is named in ``second``, else on eth0. The
    MAC addresses of all other balancers are known.
    """
    on_second = {ip_address(text) for text in second}
    held = [
        ("lo", "127.0.0.1/8"),
        ("eth0", "10.0.0.2/16"),
        ("eth0", "2001:db8::2/64"),
        ("eth1", "10.1.0.2/24"),
        ("eth1", "2001:db8:1::2/64"),
        ("eth0", "fe80::2/64"),
        ("eth1", "fe80::3/64"),
    ]
    own = {ip_interface(address).ip for _, address in held}
    return HostView(
        macs={
            address: b"\x02\x4c\x42" + address.packed[-3:]
            for _, address in config.load_balancers
            if address not in own
        },
        links={
            "lo": Link("lo", 1),
            "eth0": Link("eth0", 2, MACS["eth0"]),
            "eth1": Link("eth1", 3, MACS["eth1"]),
        },
        addresses=tuple(HostAddress(name, ip_interface(address)) for name, address in held),
        routes={
            address: Route("local", "lo", source=address)
            if address in own
            else Route(
                "unicast",
                name := "eth1" if address in on_second else "eth0",
                source=next(
                    ip_interface(text).ip
                    for held_by, text in held
                    if held_by == name and ip_interface(text).version == address.version
                ),
            )
            for address in backend_addresses(config)
        },
    )


def make_state(
    config: Config, host: HostView | None = None, *, force: bool = False
) -> DesiredState:
    """The desired state of a configuration on ``host``, which must have no problems with it."""
    host = host or make_host(config)
    routes = plan_routes(config, host)
    assert force or not routes.problems, routes.problems
    return plan_desired(config, host, routes, {}, NO_SHARES).state


def ids_of(store: Store) -> Ids:
    """The numbers that a state directory remembers."""
    return recall_ids(store.remembered().path, SystemClock())


def number_config(
    config: Config,
    known: Ids,
    now: float = 0.0,
    renamed: Mapping[str, str] | None = None,
    host: HostView | None = None,
) -> Ids:
    """The numbers for a configuration, whatever this machine lacks."""
    return plan_ids(make_state(config, host, force=True), known, now, renamed)


def trace_flow(
    config: Config, flow: Flow, entry: FlowEntry | None = None, *, later_fragment: bool = False
) -> Trace:
    """Where nftables sends a flow."""
    choose = NftDataPath(FakeNftables(), FakeTunnels(FakeNetwork(HostView()))).choose
    return plan_trace(config, flow, choose, entry, later_fragment=later_fragment)


def make_numbered(
    config: Config, host: HostView | None = None, ids: Ids | None = None
) -> NumberedState:
    """The same in numbers and devices."""
    state = make_state(config, host)
    return number_state(state, plan_ids(state, ids or Ids()))


def make_ruleset(config: Config, have: Ruleset | None = None, ids: Ids | None = None) -> Ruleset:
    """The table's content for a configuration."""
    return build_ruleset(make_numbered(config, ids=ids), have.maps if have else ()).ruleset


class FakeMachine:
    """A balancer on fakes: a kernel of values and a state directory of files."""

    def __init__(self, directory: Path, config: Config) -> None:
        self.failures = Failures()
        failing = {"failures": self.failures}
        self.nftables = FakeNftables(**failing)
        self.network = FakeNetwork(make_host(config), **failing)
        self.announcer = FakeAnnouncer(**failing)
        self.store = Store(directory)
        self.tunnels = FakeTunnels(self.network, **failing)
        self.probe_route = FakeProbeRoute(**failing)
        self.sysctls = FakeSysctls(**failing)
        self.engines = Engines(
            FakeEngine(KEEPALIVED, **failing), FakeEngine(BIRD, **failing), FakeVipRoutes(**failing)
        )
        self.adapters = Adapters(
            path=NftDataPath(self.nftables, self.tunnels),
            network=self.network,
            vips=vip_owners(self.network, self.announcer, self.engines),
            probe_route=self.probe_route,
            sysctls=self.sysctls,
        )
        self.balancer = Balancer(self.adapters, self.store)


_VIPS = ("10.0.0.100", "10.0.0.101", "2001:db8::100")
_PORTS = (PortRange(53, 53), PortRange(80, 80), PortRange(8000, 8010), PortRange(9000, 9999))


@st.composite
def configs(draw: st.DrawFn) -> Config:
    """Small valid configurations that often differ in just a few places."""
    services = []
    free = {(vip, protocol, ports) for vip in _VIPS for protocol in Protocol for ports in _PORTS}
    for name in draw(st.sets(st.sampled_from(["api", "dns", "web"]))):
        vips = draw(st.sets(st.sampled_from(_VIPS), min_size=1))
        protocols = draw(st.sets(st.sampled_from(list(Protocol)), min_size=1))
        wanted = draw(st.sets(st.sampled_from(_PORTS), min_size=1))
        ports = [
            p for p in sorted(wanted) if all((v, t, p) in free for v in vips for t in protocols)
        ]
        if not ports:
            continue
        free -= {(v, t, p) for v in vips for t in protocols for p in ports}
        members = draw(st.dictionaries(st.integers(0, 5), st.sampled_from([0, 1, 100]), max_size=4))
        services.append(
            make_service(
                name,
                sorted(vips),
                ports,
                [make_backend(number, weight) for number, weight in members.items()],
                sorted(protocols),
                draw(st.sampled_from([Scheduler.MAGLEV, Scheduler.SOURCE_HASH])),
                tunnel=draw(st.sampled_from([None, None, *Tunnel])),
                health=draw(st.sampled_from([(), (HealthMonitor(TcpProbe()),)])),
            )
        )
    interfaces = draw(st.sampled_from([("eth0",), ("eth0", "eth1")]))
    return make_config(*services, interfaces=interfaces)
