"""Ids and counts outlive what forgets them: the kernel, or the state directory."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from support.builders import FakeMachine, ids_of, make_backend, make_config, make_service
from tula.dataplane.nft.ruleset import MapName
from tula.engine.status import describe_status
from tula.model.config import Backend, Config, MarkRange, PortRange, Tunnel
from tula.model.errors import KernelError
from tula.model.stats import Count

VIPS = ("10.0.0.100", "2001:db8::100")
ALL = [make_backend(number) for number in range(4)]


def web(*backends: Backend, vips: tuple[str, ...] = VIPS) -> Config:
    return make_config(make_service("web", vips, backends=backends))


FIRST = make_config(
    make_service("old", ["10.0.0.101"], [PortRange(81, 81)], ALL[:1]),
    make_service("web", VIPS, backends=[ALL[3], ALL[1], ALL[2]]),
)
SECOND = web(*ALL[1:])


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    return FakeMachine(tmp_path / "state", web(*ALL))


def marks(machine: FakeMachine) -> dict[bytes, int]:
    """Backend ids in the kernel, by the packed address."""
    table = machine.nftables.table
    assert table is not None
    return {
        value[0]: mark
        for name, elements in table.maps.items()
        if name.startswith("nexthop")
        for mark, value in elements.items()
        if isinstance(value, tuple) and isinstance(mark, int)
    }


def forget_files(machine: FakeMachine) -> None:
    shutil.rmtree(machine.store.directory)


def forget_kernel(machine: FakeMachine) -> None:
    machine.nftables.table = None
    machine.nftables.element_counts = {}


def damage_memory(machine: FakeMachine) -> None:
    (machine.store.directory / "memory.json").write_bytes(b'{"services": [1, {')


Forget = Callable[[FakeMachine], None]


@pytest.mark.parametrize("forget", [forget_files, forget_kernel, damage_memory])
def test_ids_are_recovered_from_the_one_that_remembers(
    machine: FakeMachine, forget: Forget
) -> None:
    machine.balancer.apply(FIRST, b"1")
    machine.balancer.apply(SECOND, b"2")
    before = marks(machine)
    forget(machine)
    machine.balancer.apply(SECOND, b"2")
    assert marks(machine) == before
    machine.balancer.apply(web(*ALL), b"3")
    now = marks(machine)
    assert {address: now[address] for address in before} == before
    # The numbers above are none that a machine which knows nothing would give.
    forget_files(machine)
    forget_kernel(machine)
    machine.balancer.apply(SECOND, b"2")
    assert marks(machine) != before


def test_ids_survive_clear(machine: FakeMachine) -> None:
    machine.balancer.apply(FIRST, b"1")
    machine.balancer.apply(SECOND, b"2")
    before = marks(machine)
    machine.balancer.clear()
    machine.balancer.apply(SECOND, b"2")
    assert marks(machine) == before


def test_ids_move_with_the_mark_range(machine: FakeMachine) -> None:
    machine.balancer.apply(SECOND, b"1")
    moved = replace(SECOND, marks=MarkRange(0x50000000, 0x5FFFFFFF))
    machine.balancer.apply(moved, b"2")
    assert {mark >> 28 for mark in marks(machine).values()} == {5}
    assert not machine.balancer.plan(moved, b"")


# ── Counts ───────────────────────────────────────────────────────────────────────────────────


def count(machine: FakeMachine, number: int, packets: int, version: int = 4) -> None:
    """Lets the backend's element of one IP version count so many more packets of 100 bytes."""
    address = next(a for a in ALL[number].addresses if a.version == version)
    mark = marks(machine)[address.packed]
    assert machine.nftables.table is not None
    name = next(n for n in machine.nftables.table.maps if n.startswith(f"nexthop{version}"))
    assert MapName.parse(name)
    counts = machine.nftables.element_counts.setdefault(name, {})
    counts[mark] = counts.get(mark, Count()) + Count(packets, packets * 100)


def totals(machine: FakeMachine, config: Config) -> tuple[int, dict[str, int]]:
    """The packets of web, and of each of its backends."""
    status = describe_status(config, machine.balancer.stats().backends, {})
    service = next(s for s in status["services"] if s["name"] == "web")
    assert service["bytes"] == service["packets"] * 100
    return service["packets"], {b["name"]: b["packets"] for b in service["backends"]}


def test_a_removed_backend_stays_in_the_total_once(machine: FakeMachine) -> None:
    both, one = web(*ALL[:2]), web(ALL[0])
    machine.balancer.apply(both, b"1")
    count(machine, 0, 5)
    count(machine, 1, 7, version=6)
    assert totals(machine, both) == (12, {"b0": 5, "b1": 7})
    for _ in range(3):
        machine.balancer.apply(one, b"2")
        assert totals(machine, one) == (12, {"b0": 5})
    machine.balancer.apply(both, b"1")
    assert totals(machine, both) == (12, {"b0": 5, "b1": 7})
    count(machine, 1, 1)
    machine.balancer.apply(one, b"2")
    machine.balancer.apply(both, b"1")
    assert totals(machine, both) == (13, {"b0": 5, "b1": 8})


def test_counts_of_an_ip_version_that_goes_stay_in_the_total(machine: FakeMachine) -> None:
    dual, single = web(*ALL[:1]), web(*ALL[:1], vips=VIPS[:1])
    machine.balancer.apply(dual, b"1")
    count(machine, 0, 5)
    count(machine, 0, 7, version=6)
    for config in (single, single, dual, dual):
        machine.balancer.apply(config, b"2")
        assert totals(machine, config) == (12, {"b0": 12})


def test_counts_go_on_when_the_marks_move_and_when_memory_is_lost(machine: FakeMachine) -> None:
    config = web(*ALL[:2])
    machine.balancer.apply(config, b"1")
    count(machine, 0, 5)
    moved = replace(config, marks=MarkRange(0x50000000, 0x5FFFFFFF))
    machine.balancer.apply(moved, b"2")
    count(machine, 0, 1)
    assert totals(machine, moved) == (6, {"b0": 6, "b1": 0})
    damage_memory(machine)
    machine.balancer.apply(moved, b"2")
    assert totals(machine, moved) == (1, {"b0": 1, "b1": 0}), "what the kernel still knows"


def test_a_refused_apply_counts_nothing_twice(machine: FakeMachine) -> None:
    both, one = web(*ALL[:2]), web(ALL[0])
    machine.balancer.apply(both, b"1")
    count(machine, 1, 7)
    machine.nftables.refuse = "busy"
    for _ in range(2):
        with pytest.raises(KernelError):
            machine.balancer.apply(one, b"2")
        assert totals(machine, both) == (7, {"b0": 0, "b1": 7})
    machine.nftables.refuse = ""
    machine.balancer.apply(one, b"2")
    assert totals(machine, one) == (7, {"b0": 0})


def test_a_service_that_goes_takes_its_counts_along(machine: FakeMachine) -> None:
    machine.balancer.apply(web(*ALL[:2]), b"1")
    count(machine, 0, 5)
    machine.balancer.apply(web(ALL[1]), b"2")
    machine.balancer.apply(make_config(), b"3")
    machine.balancer.apply(web(*ALL[:2]), b"1")
    assert totals(machine, web(*ALL[:2])) == (0, {"b0": 0, "b1": 0})


def test_ids_of_backends_in_tunnels_are_recovered_whatever_is_inside(tmp_path: Path) -> None:
    """The next hop is then an address that Tula made up: the element's comment has the key."""
    six = Backend("six", (ip_address("2001:db8::6"),))
    services = [
        make_service("web", VIPS, backends=[ALL[0], six], tunnel=Tunnel.GRE),
        make_service("api", ["10.0.0.101"], [PortRange(81, 81)], [six], tunnel=Tunnel.IPIP),
    ]
    config = make_config(*services)
    machine = FakeMachine(tmp_path / "state", config)
    machine.balancer.apply(config, b"")
    before = ids_of(machine.store)
    forget_files(machine)
    assert not machine.balancer.plan(config, b"").path
    machine.balancer.apply(config, b"")
    after = ids_of(machine.store)
    assert (after.services, after.backends) == (before.services, before.backends)
