"""Trace, by itself; against the kernel it is proven in tests/packets/test_trace.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from support.builders import make_backend, make_config, make_service, trace_flow
from tula.kernel.fake_data_path import FakeDataPath
from tula.model.client_scopes import HeldClient
from tula.model.config import Affinity, Backend, PortRange, Protocol, Scheduler
from tula.model.flow import Flow, FlowEntry
from tula.model.health import BackendStatus, State
from tula.model.persistence import ClientsOfDrained, Persistence
from tula.plan.persistent_clients import PersistentClient
from tula.plan.trace import Trace, plan_trace

B = [make_backend(number) for number in range(3)]
CONFIG = make_config(
    make_service("exact", ports=[PortRange(80, 80)], backends=B),
    make_service("range", ports=[PortRange(8000, 8010)], backends=B),
    make_service("rest", ports=[], backends=[B[0]]),
    make_service("idle", ["10.0.0.101"], backends=[replace(B[0], weight=0)]),
    make_service("empty", ["10.0.0.102"]),
)


def flow(port: int, vip: str = "10.0.0.100", source: int = 5000) -> Flow:
    client = ip_address("2001:db8::c" if ":" in vip else "192.0.2.1")
    return Flow(client, source, ip_address(vip), port, Protocol.TCP)


@pytest.mark.parametrize(
    ("port", "service"), [(80, "exact"), (8005, "range"), (8011, "rest"), (22, "rest")]
)
def test_the_most_exact_service_takes_the_flow(port: int, service: str) -> None:
    assert trace_flow(CONFIG, flow(port)).service == service


def test_the_only_backend_takes_everything() -> None:
    found = trace_flow(CONFIG, flow(9))
    assert (found.service, found.backend) == ("rest", "b0")
    assert "any port" in found.reason


@pytest.mark.parametrize(
    ("vip", "service", "reason"),
    [
        ("10.0.0.101", "idle", "weight 0"),
        ("10.0.0.102", "empty", "no backends"),
        ("10.0.0.103", None, "no service"),
        ("2001:db8::100", None, "no service"),
    ],
)
def test_nobody_serves(vip: str, service: str | None, reason: str) -> None:
    found = trace_flow(CONFIG, flow(80, vip))
    assert (found.service, found.backend) == (service, None)
    assert reason in found.reason


@pytest.mark.parametrize(
    "how", [{"affinity": Affinity.CLIENT}, {"scheduler": Scheduler.SOURCE_HASH}]
)
def test_by_client_the_port_does_not_matter(how: dict[str, object]) -> None:
    by_client = make_config(make_service(backends=B, **how))  # type: ignore[arg-type]
    by_flow = make_config(make_service(backends=B))
    ports = range(5000, 5050)
    assert len({trace_flow(by_client, flow(80, source=port)).backend for port in ports}) == 1
    assert len({trace_flow(by_flow, flow(80, source=port)).backend for port in ports}) == 3


def test_a_live_entry_goes_before_the_hash() -> None:
    asked = flow(80)
    hashed = trace_flow(CONFIG, asked)
    for backend in B:
        found = trace_flow(CONFIG, asked, FlowEntry("exact", backend.key))
        assert (found.service, found.backend) == ("exact", backend.name)
        assert found.reason.endswith("the table of connections holds this flow")
    assert "hashes" in hashed.reason


@pytest.mark.parametrize(
    "entry", [FlowEntry("exact", "10.9.9.9"), FlowEntry("gone", B[0].key), FlowEntry("", "")]
)
def test_an_entry_whose_backend_is_gone_is_chosen_for_anew(entry: FlowEntry) -> None:
    assert trace_flow(CONFIG, flow(80), entry) == trace_flow(CONFIG, flow(80))


def test_an_entry_holds_a_flow_to_a_drained_backend() -> None:
    found = trace_flow(CONFIG, flow(80, "10.0.0.101"), FlowEntry("idle", B[0].key))
    assert found.backend == "b0"


@pytest.mark.parametrize(
    ("entry", "service", "backend", "why"),
    [
        (FlowEntry("exact", B[1].key), "exact", "b1", "first fragment went there"),
        (FlowEntry("rest", B[0].key), "rest", "b0", "first fragment went there"),
        (FlowEntry("exact", "10.9.9.9"), "exact", None, "is gone"),
        (FlowEntry("", ""), "exact", None, "is gone"),
        (None, "exact", None, "goes on to the host"),
    ],
)
def test_a_later_fragment_goes_where_its_datagrams_first_went(
    entry: FlowEntry | None, service: str, backend: str | None, why: str
) -> None:
    found = trace_flow(CONFIG, flow(80), entry, later_fragment=True)
    assert (found.service, found.backend) == (service, backend)
    assert why in found.reason


@pytest.mark.parametrize("scheduler", [Scheduler.RR, Scheduler.WRR, Scheduler.RANDOM])
def test_a_new_flow_that_gets_its_turn_cannot_be_foretold(scheduler: Scheduler) -> None:
    config = make_config(make_service("exact", backends=B, scheduler=scheduler))
    found = trace_flow(config, flow(80))
    assert (found.service, found.backend) == ("exact", None)
    assert f"{scheduler} gives a new flow its turn" in found.reason
    assert trace_flow(config, flow(80), FlowEntry("exact", B[2].key)).backend == "b2"


@pytest.mark.parametrize("port", [80, 9])
def test_a_flow_stays_with_the_service_that_took_it_when_its_port_is_anothers_now(
    port: int,
) -> None:
    found = trace_flow(CONFIG, flow(port), FlowEntry("range", B[2].key))
    assert (found.service, found.backend) == ("range", "b2")
    assert found.reason == f"range took port {port}; the table of connections holds this flow"


STICKY = Persistence(300.0, prefix=24)
RELEASE = replace(STICKY, drain=ClientsOfDrained.RELEASE)


def persistent(
    held: HeldClient | None,
    scheduler: Scheduler = Scheduler.MAGLEV,
    settings: Persistence = STICKY,
    weights: Mapping[str, int] | None = None,
    statuses: Mapping[tuple[str, str], BackendStatus] | None = None,
    source: str = "192.0.2.1",
) -> Trace:
    backends = [replace(b, weight=(weights or {}).get(b.name, 100)) for b in B]
    service = make_service("web", backends=backends, scheduler=scheduler)
    config = make_config(replace(service, persistence=settings))
    choose = FakeDataPath().choose
    asked = replace(flow(80), client=ip_address(source))
    return plan_trace(config, asked, choose, held=held, statuses=statuses or {})


def held_at(backend: str, seconds: float | None = 250.0) -> HeldClient:
    return HeldClient(("web",), ip_network("192.0.2.0/24"), backend, seconds)


@pytest.mark.parametrize("backend", B)
@pytest.mark.parametrize("scheduler", [Scheduler.MAGLEV, Scheduler.RR])
def test_a_persistent_client_goes_to_the_backend_of_its_entry(
    backend: Backend, scheduler: Scheduler
) -> None:
    found = persistent(held_at(backend.key), scheduler)
    assert (found.service, found.backend) == ("web", backend.name)
    assert found.reason == (
        f"web takes port 80; persistence holds client 192.0.2.0/24 at {backend.name} for 4m10s more"
    )
    assert found.client == PersistentClient(
        ip_network("192.0.2.0/24"), backend.name, 250.0, kept=True
    )
    assert persistent(held_at(backend.key, None), scheduler).reason.endswith(f"at {backend.name}")


def test_a_client_without_an_entry_is_hashed_as_it_is_told_apart() -> None:
    found = {persistent(None, source=f"192.0.2.{n}").reason for n in range(20)}
    assert len(found) == 1
    assert next(iter(found)).startswith(
        "web takes port 80; no entry for client 192.0.2.0/24 yet; maglev hashes 192.0.2.0/24 to"
    )
    turn = persistent(None, Scheduler.RR)
    assert turn.backend is None
    assert turn.reason == (
        "web takes port 80; no entry for client 192.0.2.0/24 yet; rr gives a new flow its turn"
    )
    assert turn.client is None


@pytest.mark.parametrize(
    ("settings", "weight", "status", "kept", "why"),
    [
        (STICKY, 0, None, True, ""),
        (STICKY, 0, BackendStatus(State.DRAINING, 0, True, keeps_clients=True), True, ""),
        (STICKY, 0, BackendStatus(State.DRAINING, 0, True), False, "which is draining"),
        (RELEASE, 0, BackendStatus(State.DRAINING, 0, True), False, "which is draining"),
        (RELEASE, 5, BackendStatus(State.UP, 5, True), True, ""),
        (STICKY, 0, BackendStatus(State.DOWN, 0, False), False, "which is down"),
        (STICKY, 0, BackendStatus(State.DISABLED, 0, False), False, "which is disabled"),
        # A backup that does not serve, and one that panic brings in.
        (STICKY, 0, BackendStatus(State.UP, 0, True), False, "which is up"),
        (STICKY, 9, BackendStatus(State.DOWN, 9, True), True, ""),
    ],
)
def test_a_client_is_kept_or_chosen_for_again(
    settings: Persistence, weight: int, status: BackendStatus | None, kept: bool, why: str
) -> None:
    statuses = {} if status is None else {("web", "b1"): status}
    found = persistent(held_at(B[1].key), Scheduler.MAGLEV, settings, {"b1": weight}, statuses)
    assert found.client is not None
    assert found.client.kept is kept
    assert (found.backend == "b1") is kept
    assert why in found.reason
    assert ("maglev hashes" in found.reason) is not kept


def test_an_entry_of_a_backend_that_is_gone_holds_nobody() -> None:
    found = persistent(held_at("10.9.9.9"))
    assert found.client == PersistentClient(
        ip_network("192.0.2.0/24"), None, 250.0, False, "which is not a backend of it"
    )
    assert "maglev hashes" in found.reason
