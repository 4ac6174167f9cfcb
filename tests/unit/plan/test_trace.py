"""Trace, by itself; against the kernel it is proven in tests/packets/test_trace.py."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from support.builders import make_backend, make_config, make_service, trace_flow
from tula.model.config import Affinity, PortRange, Protocol, Scheduler
from tula.model.flow import Flow, FlowEntry

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
