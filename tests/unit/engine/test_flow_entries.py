"""What the balancer tells of the tables that packets fill."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from support.builders import FakeMachine, ids_of, make_backend, make_config, make_service
from tula.dataplane.nft.flow_keys import flow_key, fragment_key
from tula.dataplane.nft.ids import backend_id
from tula.engine.status import describe_status
from tula.model.config import Connections, PortRange, Protocol
from tula.model.flow import Flow, FlowEntry
from tula.model.stats import Count, TableUse

B = [make_backend(0), make_backend(1)]
CONFIG = make_config(make_service(vips=["10.0.0.100", "2001:db8::100"], backends=B))
FLOWS = {
    4: Flow(ip_address("192.0.2.1"), 5000, ip_address("10.0.0.100"), 80, Protocol.TCP),
    6: Flow(ip_address("2001:db8::9"), 5000, ip_address("2001:db8::100"), 80, Protocol.TCP),
}


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    made = FakeMachine(tmp_path / "state", CONFIG)
    made.balancer.apply(CONFIG, b"document")
    return made


def mark(machine: FakeMachine, backend: int) -> int:
    ids = ids_of(machine.store)
    return backend_id(ids.services["web"], ids.backends[B[backend].key])


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("table", ["tcp", "closed"])
def test_an_entry_is_found_by_its_flow(machine: FakeMachine, version: int, table: str) -> None:
    flow = FLOWS[version]
    assert machine.balancer.find_entry(flow) is None
    machine.nftables.flows[f"{table}{version}_262144", flow_key(flow)] = mark(machine, 1)
    assert machine.balancer.find_entry(flow) == FlowEntry("web", B[1].key)
    assert machine.balancer.find_entry(replace(flow, client_port=5001)) is None
    assert machine.balancer.find_entry(replace(flow, protocol=Protocol.UDP)) is None


def test_an_open_connection_goes_before_one_that_closed(machine: FakeMachine) -> None:
    flow, held = FLOWS[4], machine.nftables.flows
    held["closed4_262144", flow_key(flow)] = mark(machine, 0)
    held["tcp4_262144", flow_key(flow)] = mark(machine, 1)
    assert machine.balancer.find_entry(flow) == FlowEntry("web", B[1].key)


def test_the_entry_of_a_backend_that_nobody_knows(machine: FakeMachine) -> None:
    machine.nftables.flows["tcp4_262144", flow_key(FLOWS[4])] = backend_id(77, 99)
    assert machine.balancer.find_entry(FLOWS[4]) == FlowEntry("", "")


def test_a_datagrams_fragments_have_an_entry_of_their_own(machine: FakeMachine) -> None:
    flow = FLOWS[4]
    machine.nftables.flows["frag4_65536", fragment_key(flow, 7)] = mark(machine, 0)
    assert machine.balancer.find_entry(flow, 7) == FlowEntry("web", B[0].key)
    assert machine.balancer.find_entry(flow, 8) is None


def test_without_a_table_nothing_is_held(tmp_path: Path) -> None:
    empty = FakeMachine(tmp_path / "state", CONFIG)
    assert empty.balancer.find_entry(FLOWS[4]) is None
    assert empty.balancer.stats().tables == ()


def test_the_tables_in_use_and_none_of_the_others(machine: FakeMachine) -> None:
    kinds = ("closed", "frag", "tcp", "udp")
    names = sorted(f"{kind}{version}" for kind in kinds for version in (4, 6))
    sizes = {name: 65536 if name.startswith("frag") else 262144 for name in names}
    uses = [TableUse(name, 0, size) for name, size in sizes.items()]
    assert machine.balancer.stats().tables == tuple(uses)


def test_disabled_there_are_no_flow_tables(tmp_path: Path) -> None:
    off = replace(CONFIG, connections=Connections(enabled=False))
    machine = FakeMachine(tmp_path / "state", off)
    machine.balancer.apply(off, b"document")
    assert [use.name for use in machine.balancer.stats().tables] == ["frag4", "frag6"]
    assert machine.balancer.find_entry(FLOWS[4]) is None


def test_status_tells_entries_in_use() -> None:
    uses = [TableUse("tcp4", 12, 1024), TableUse("udp4", None, 1024)]
    answer: dict[str, Any] = describe_status(CONFIG, {}, {"table_full": Count(3, 180)}, uses)
    assert answer["connections"] == {
        "tcp4": {"entries": 12, "size": 1024},
        "udp4": {"entries": None, "size": 1024},
    }
    assert answer["counters"] == {"table_full": {"packets": 3, "bytes": 180}}


@pytest.mark.parametrize("ports", [(PortRange(80, 80),), (PortRange(1, 9),), ()])
def test_a_service_with_another_name_and_the_same_ports_keeps_its_flows(
    tmp_path: Path, ports: tuple[PortRange, ...]
) -> None:
    before, after = (
        make_config(make_service(name, ["2001:db8::100"], ports=ports, backends=B))
        for name in ("web", "site")
    )
    machine = FakeMachine(tmp_path / "state", before)
    machine.balancer.apply(before, b"1")
    numbers = [ids_of(machine.store).services["web"]]
    machine.balancer.apply(after, b"2")
    assert list(ids_of(machine.store).services.values()) == numbers
