"""Trace, by itself; against the kernel it is proven in tests/packets/test_trace.py."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from support.builders import make_backend, make_config, make_service
from tula.model.config import Affinity, PortRange, Protocol, Scheduler
from tula.plan.trace import Flow, plan_trace

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
    assert plan_trace(CONFIG, flow(port)).service == service


def test_the_only_backend_takes_everything() -> None:
    found = plan_trace(CONFIG, flow(9))
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
    found = plan_trace(CONFIG, flow(80, vip))
    assert (found.service, found.backend) == (service, None)
    assert reason in found.reason


@pytest.mark.parametrize(
    "how", [{"affinity": Affinity.CLIENT}, {"scheduler": Scheduler.SOURCE_HASH}]
)
def test_by_client_the_port_does_not_matter(how: dict[str, object]) -> None:
    by_client = make_config(make_service(backends=B, **how))  # type: ignore[arg-type]
    by_flow = make_config(make_service(backends=B))
    ports = range(5000, 5050)
    assert len({plan_trace(by_client, flow(80, source=port)).backend for port in ports}) == 1
    assert len({plan_trace(by_flow, flow(80, source=port)).backend for port in ports}) == 3
