"""What is known of other balancers, engines, routers and flows, and what follows from it."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import pytest

from support.builders import make_backend, make_config, make_host, make_service
from tula.doctor.adverts import Advert
from tula.doctor.bgp import check_routers, check_vip_table
from tula.doctor.cluster import Cluster
from tula.doctor.engine_state import EngineState, observe_engine
from tula.doctor.engines import check_engines, check_priorities
from tula.doctor.flows import check_flows, requests_for_peers
from tula.doctor.observation import Observation
from tula.doctor.peers import check_peers
from tula.doctor.replies import Reply, ReplyKind
from tula.doctor.requests import Responses
from tula.kernel.engines import BIRD, KEEPALIVED, FakeEngine
from tula.kernel.vip_routes import VipRoute, VipTable
from tula.model.bgp import BgpSessionState
from tula.model.config import Tunnel
from tula.model.desired import SharedWith
from tula.model.high_availability import Bgp, HighAvailability, Vrrp
from tula.model.host import Link, Route
from tula.plan.routes import plan_routes
from tula.version import __version__

OWN, PEER, VIP = ip_address("10.0.0.2"), ip_address("10.0.0.3"), ip_address("10.0.0.100")
ROUTER = ip_address("10.0.0.1")
CONFIG = replace(
    make_config(make_service(backends=[make_backend(0, dual=False)])),
    load_balancers=(("lb1", OWN), ("lb2", PEER)),
    high_availability=HighAvailability(Vrrp(84)),
)
BY_BGP = replace(CONFIG, high_availability=HighAvailability(bgp=Bgp(65001, ((ROUTER, 65000),))))
HOST = make_host(CONFIG)
CLUSTER = Cluster("lb1", OWN, (("lb2", PEER),), "eth0", Vrrp(84), frozenset({VIP}))
NOTHING = Responses()
FINE: dict[str, Any] = {
    "name": "lb2",
    "address": "10.0.0.3",
    "added": True,
    "alive": True,
    "why": None,
    "version": __version__,
    "standby": False,
    "digest": "abc",
    "tentative": False,
    "configuration_equal": True,
    "overrides_equal": True,
    "seen_otherwise": [],
    "seen_otherwise_total": 0,
    "flows": {"sent": 5, "learned": 7},
    "hears_us": True,
    "clock": 0.01,
}


def observed(config: Any = CONFIG, has_daemon: bool = False, **keys: Any) -> Observation:
    cluster = replace(CLUSTER, **keys)
    return Observation(
        config, HOST, plan_routes(config, HOST), cluster=cluster, has_daemon=has_daemon
    )


def status(**peer: Any) -> dict[str, Any]:
    return {"standby": False, "flows": {"sent": 100, "learned": 3}, "peers": [FINE | peer]}


OTHERWISE = [{"backend": "web/b0", "here": "down", "there": "up"}]


@pytest.mark.parametrize(
    ("peer", "wanted", "words"),
    [
        ({}, [], ""),
        ({"added": False, "alive": False}, ["peer-not-added"], "tula peer add lb2"),
        (
            {"alive": False, "why": "its certificate is another one than was pinned"},
            ["peer-unreachable"],
            "another one than was pinned",
        ),
        ({"hears_us": False}, ["peer-does-not-hear"], ""),
        ({"hears_us": None, "clock": None}, [], ""),
        ({"configuration_equal": False}, ["configurations-differ"], "(abc)"),
        ({"configuration_equal": None, "overrides_equal": None}, [], ""),
        ({"overrides_equal": False}, ["overrides-differ"], ""),
        (
            {
                "overrides_equal": False,
                "seen_otherwise": [{"backend": "web/b0", "here": "draining", "there": "up"}],
                "seen_otherwise_total": 1,
            },
            ["overrides-differ"],
            "such as web/b0",
        ),
        ({"clock": -2.5}, ["clocks-differ"], "2 s behind this"),
        ({"clock": 1.9}, [], ""),
        ({"version": "0.0.1"}, ["versions-differ"], "0.0.1"),
        (
            {"seen_otherwise": OTHERWISE, "seen_otherwise_total": 3},
            ["health-differs"],
            "web/b0 (down here, up there), and 2 more",
        ),
    ],
)
def test_a_peer(peer: dict[str, Any], wanted: list[str], words: str) -> None:
    found = list(check_peers(observed(status=status(**peer)), NOTHING))
    assert [f.id for f in found] == wanted
    assert all(f.where == "lb2" for f in found)
    assert words in "".join(f.evidence + f.fix for f in found)


def test_without_a_daemon_or_with_one_of_another_configuration() -> None:
    assert [f.id for f in check_peers(observed(), NOTHING)] == ["peers-unknown"]
    assert not list(check_peers(observed(status={"peers": []}), NOTHING))


def test_tunnels_may_not_admit_a_balancer() -> None:
    service = make_service(backends=[make_backend(0, dual=False)], tunnel=Tunnel.VXLAN)
    seen = status(seen_otherwise=OTHERWISE, seen_otherwise_total=1)
    config = replace(CONFIG, services=(service,))
    (found,) = check_peers(observed(config, status=seen), NOTHING)
    assert "tula backend join" in found.fix
    (found,) = check_peers(observed(status=seen), NOTHING)
    assert "tula backend join" not in found.fix


@pytest.mark.parametrize(
    ("keys", "has_daemon", "wanted", "commands"),
    [
        ({}, True, [], ()),
        ({"missing": "…"}, True, ["engine-missing"], ("apt-get install -y keepalived",)),
        ({"runs": False}, True, ["engine-not-running"], ()),
        (
            {"runs": False, "kept": True},
            True,
            ["engine-not-running"],
            ("systemctl restart tula-keepalived",),
        ),
        ({"runs": False, "configured": False, "kept": True}, True, ["engine-not-running"], ()),
        ({"runs": False, "configured": False}, False, ["engine-not-running"], ()),
    ],
)
def test_an_engine(
    keys: dict[str, Any], has_daemon: bool, wanted: list[str], commands: tuple[str, ...]
) -> None:
    state = replace(EngineState("keepalived", "keepalived", "tula-keepalived"), **keys)
    found = list(check_engines(observed(has_daemon=has_daemon, engines=[state]), NOTHING))
    assert [f.id for f in found] == wanted
    assert tuple(c for f in found for c in f.commands) == commands


def test_what_is_read_of_an_engine() -> None:
    engine = FakeEngine(KEEPALIVED, {"keepalived.conf": "", "services": "80\n", "standby": "0\n"})
    assert observe_engine(engine).priority == 230
    engine.files["standby"] = "-149\n"
    assert observe_engine(engine).priority == 81
    engine.files["standby"] = "?"
    assert observe_engine(engine).priority is None
    assert observe_engine(FakeEngine(BIRD)).configured is False


@pytest.mark.parametrize(
    ("sent", "heard", "own", "peer", "wanted"),
    [
        (250, None, 250, {}, []),
        (200, None, 250, {}, ["warning"]),
        (None, 250, 250, {}, []),
        (None, 200, 250, {}, ["warning"]),
        (None, 200, 250, {"seen_otherwise_total": 1}, ["note"]),
        (None, 250, 200, {"seen_otherwise_total": 1}, []),
        (None, 250, 101, {"standby": True}, []),
        (None, 250, None, {}, []),
    ],
)
def test_priorities(
    sent: int | None, heard: int | None, own: int | None, peer: dict[str, Any], wanted: list[str]
) -> None:
    adverts = [
        Advert(source, PEER, 3, 84, priority, (), 0.1, outgoing=source == OWN)
        for source, priority in ((OWN, sent), (PEER, heard))
        if priority is not None
    ]
    state = EngineState("keepalived", "keepalived", "tula-keepalived", priority=own)
    machine = observed(engines=[state], status=status(**peer))
    found = list(check_priorities(machine, Responses(adverts=adverts)))
    assert [str(f.severity) for f in found] == wanted
    assert {f.id for f in found} <= {"priorities-differ"}


UP = BgpSessionState(ROUTER, "Established", 0.0, 1, (4,), "Up")


@pytest.mark.parametrize(
    ("session", "wanted"),
    [
        (UP, []),
        (replace(UP, state="Active", error="Hold timer expired"), ["bgp-session"]),
        (replace(UP, bfd="Down"), ["bfd-down"]),
        (replace(UP, bfd=""), ["bfd-down"]),
        (replace(UP, routes=0), ["routes-not-told"]),
        (replace(UP, versions=(), routes=0), ["routes-not-told"]),
    ],
)
def test_a_router(session: BgpSessionState, wanted: list[str]) -> None:
    table = VipTable(frozenset({VipRoute(VIP, 100)}))
    machine = observed(BY_BGP, sessions=[session], vip_table=table)
    assert [f.id for f in check_routers(machine, NOTHING)] == wanted


def test_a_router_that_is_gone() -> None:
    host = replace(HOST, routes={ROUTER: Route("unicast", "eth0", source=OWN)})
    cluster = replace(CLUSTER, vip_table=VipTable())
    machine = Observation(BY_BGP, host, cluster=cluster)
    assert [f.id for f in check_routers(machine, NOTHING)] == ["router-unreachable"]
    here = Responses(macs={("eth0", ROUTER): {bytes(6)}})
    assert not list(check_routers(machine, here))


def test_routes_of_others_in_the_table() -> None:
    table = VipTable(foreign=(ip_network("10.0.0.100/32"), ip_network("fd09::/64")))
    (found,) = check_vip_table(observed(BY_BGP, vip_table=table), NOTHING)
    assert found.id == "table-in-use"
    assert found.commands == (
        "ip -4 route del table 84 10.0.0.100/32",
        "ip -6 route del table 84 fd09::/64",
    )
    assert not list(check_vip_table(observed(BY_BGP, vip_table=VipTable()), NOTHING))


SHARED = SharedWith(OWN, (PEER,), 4790, False)
SYNC = Link("tula-sync", 9, bytes(6))


@pytest.mark.parametrize(
    ("link", "answer", "peer", "wanted"),
    [
        (SYNC, None, {}, []),
        (None, None, {}, ["flows-not-told"]),
        (replace(SYNC, up=False), None, {}, ["flows-not-told"]),
        (SYNC, (3, 3), {}, ["flows-not-taken"]),
        (SYNC, (3, 13), {}, ["flows-not-taken"]),
        (SYNC, None, {"flows": {"sent": 0, "learned": 0}}, ["flows-not-taken"]),
        (SYNC, None, {"alive": False, "flows": {"sent": 0, "learned": 0}}, []),
    ],
)
def test_flows(
    link: Link | None, answer: tuple[int, int] | None, peer: dict[str, Any], wanted: list[str]
) -> None:
    links = {**HOST.links, **({"tula-sync": link} if link is not None else {})}
    machine = replace(
        observed(shared_with=SHARED, status=status(**peer)), host=replace(HOST, links=links)
    )
    (request,) = requests_for_peers(machine)
    responses = Responses()
    if answer is not None:
        responses.replies[request] = [Reply(ReplyKind.ERROR, 1, PEER, icmp=answer, quoted=PEER)]
    assert [f.id for f in check_flows(machine, responses)] == wanted


def test_flows_of_interfaces_without_ethernet() -> None:
    links = {**HOST.links, "tula-sync": SYNC, "eth0": replace(HOST.links["eth0"], ethernet=False)}
    machine = replace(observed(shared_with=SHARED), host=replace(HOST, links=links))
    assert [str(f.severity) for f in check_flows(machine, NOTHING)] == ["note"]
    assert not list(check_flows(observed(), NOTHING))
