"""What health moves ends where a full reconcile ends, whatever moved before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.builders import FakeMachine, make_backend, make_config, make_service
from tula.dataplane.nft.build import build_ruleset
from tula.dataplane.nft.number import number_state
from tula.dataplane.nft.ruleset import Kind
from tula.engine.store import Store
from tula.kernel.nft_values import NftReceipt
from tula.kernel.nftables import next_generation
from tula.model.config import (
    Config,
    Connections,
    Scheduler,
    Tunnel,
)
from tula.model.desired import DesiredState
from tula.model.errors import StaleError
from tula.model.health import BackendName, BackendStatus, State
from tula.model.monitor import HealthMonitor, TcpProbe
from tula.model.persistence import ClientsOfDrained, Persistence
from tula.plan.desired import plan_desired

UP = BackendStatus(State.UP, 100, True)
CHOICES = [
    UP,
    BackendStatus(State.UP, 10, True, "slow start"),
    BackendStatus(State.DRAINING, 0, True),
    BackendStatus(State.DOWN, 0, False, "refused"),
    BackendStatus(State.DOWN, 100, True, "panic"),
    BackendStatus(State.UP, 0, True, "stands by"),
]
PERSISTENCE = [
    None,
    None,
    Persistence(300.0),
    Persistence(300.0, 24, 64, drain=ClientsOfDrained.RELEASE),
    Persistence(60.0, scope="vip"),
    Persistence(60.0, scope="together"),
]
VIPS = [("10.0.0.100",), ("10.0.0.101", "2001:db8::101"), ("10.0.0.102",), ("2001:db8::103",)]
SCHEDULERS = [
    Scheduler.MAGLEV,
    Scheduler.WRR,
    Scheduler.RR,
    Scheduler.RANDOM,
    Scheduler.LEAST_CONNECTIONS,
]
Step = tuple[dict[BackendName, BackendStatus], dict[str, dict[str, int]]]
"""BackendStatuses, and what least-connections gives."""


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    """Services that often share their table, and differ in how they choose."""
    services = []
    for number, vips in enumerate(VIPS[: draw(st.integers(1, 4))]):
        members = draw(st.sampled_from([(0, 1, 2), (0, 1, 2), (0, 1), (3,), ()]))
        services.append(
            make_service(
                f"s{number}",
                vips,
                backends=[make_backend(each, draw(st.sampled_from([100, 0]))) for each in members]
                if draw(st.booleans())
                else [make_backend(each) for each in members],
                scheduler=draw(st.sampled_from(SCHEDULERS)),
                tunnel=draw(st.sampled_from([None, None, Tunnel.IPIP])),
                health=draw(st.sampled_from([(), (HealthMonitor(TcpProbe()),)])),
            )
        )
    services = [replace(s, persistence=draw(st.sampled_from(PERSISTENCE))) for s in services]
    config = make_config(*services)
    if draw(st.booleans()) and all(s.scheduler is Scheduler.MAGLEV for s in services):
        config = replace(config, connections=replace(Connections(), enabled=False))
    return config


def names_of(config: Config) -> list[BackendName]:
    return [(service.name, b.name) for service in config.services for b in service.backends]


@st.composite
def histories(draw: st.DrawFn) -> tuple[Config, list[Step], bool]:
    """A configuration, its statuses one after the other, and whether a backend has no way."""
    config = draw(configurations())
    steps: list[Step] = []
    now = dict.fromkeys(names_of(config), UP)
    for _ in range(draw(st.integers(1, 4))):
        if now:
            names = st.sampled_from(list(now))
            now = {**now, **draw(st.dictionaries(names, st.sampled_from(CHOICES)))}
        given = {
            service.name: {b.name: draw(st.sampled_from([1, 50, 100])) for b in service.backends}
            for service in config.services
            if draw(st.booleans())
        }
        steps.append((now, given))
    return config, steps, draw(st.booleans())


@settings(max_examples=150)
@given(histories())
def test_adjusting_ends_where_a_full_reconcile_ends(
    history: tuple[Config, list[Step], bool],
) -> None:
    config, steps, cut = history
    with TemporaryDirectory() as folder:
        machine = FakeMachine(Path(folder), config)
        if cut:  # no way leads to the first backend's IPv4 address
            routes = dict(machine.network.host.routes)
            routes.pop(next(iter(routes), None), None)
            machine.network.host = replace(machine.network.host, routes=routes)
        balancer = machine.balancer
        balancer.reconcile(config, dict.fromkeys(names_of(config), UP))
        for statuses, shares in steps:
            balancer.adjust(statuses, shares)
            applied = balancer.applied
            assert applied is not None
            target = target_of(machine)
            assert machine.nftables.table == target.built.ruleset
            assert applied.receipt.revision == machine.nftables.generation()
            assert target.state is applied.plan.state
            whole = number_state(target.state, target.ids)
            anew_built = build_ruleset(whole, target.built.ruleset.maps)
            assert anew_built.ruleset == target.built.ruleset
            unknown = frozenset(applied.unreachable)
            anew = plan_desired(
                config, applied.host, applied.routes, statuses, shares, unknown
            ).state
            assert comparable(anew) == comparable(target.state)
            repair = balancer.reconcile(config, statuses, shares)
            assert not repair.change, "a full reconcile finds nothing to do"


def comparable(state: DesiredState) -> object:
    """The state with its tables by content: they are compared by identity."""
    return replace(
        state,
        services=tuple(replace(service, maglev=None, order=None) for service in state.services),
    ), [
        table and (table.group, table.content, table.slots)
        for service in state.services
        for table in (service.maglev, service.order)
    ]


def target_of(machine: FakeMachine) -> Any:
    """What nftables was brought to."""
    applied = machine.balancer.applied
    assert applied is not None
    receipt = applied.receipt
    assert isinstance(receipt, NftReceipt)
    assert receipt.target is not None
    return receipt.target


def many(count: int) -> Config:
    backends = [make_backend(number, dual=False) for number in range(4)]
    return make_config(
        *(
            make_service(f"s{n}", [f"10.1.{n // 250}.{n % 250}"], backends=backends, announce=False)
            for n in range(count)
        )
    )


def test_what_does_not_move_is_the_same_object(tmp_path: Path) -> None:
    config = many(20)
    machine = FakeMachine(tmp_path, config)
    up = dict.fromkeys(names_of(config), UP)
    machine.balancer.reconcile(config, up)
    before = target_of(machine)
    machine.balancer.adjust({**up, ("s3", "b1"): BackendStatus(State.DOWN, 0, False)})
    after = target_of(machine)
    for had, has in ((before.state, after.state), (before.numbered, after.numbered)):
        same = zip(had.services, has.services, strict=True)
        assert [old.name for old, new in same if old is not new] == ["s3"]
    chains, had = after.built.ruleset.chains, before.built.ruleset.chains
    moved = {name for name, chain in had.items() if chains[name] is not chain}
    assert moved == {"service4.s3", "icmp4.s3"}
    assert (
        before.built.ruleset.maps["service_port4_1024"]
        is after.built.ruleset.maps["service_port4_1024"]
    )


def test_a_backend_that_all_share_moves_elements_alone(tmp_path: Path) -> None:
    config = many(20)
    machine = FakeMachine(tmp_path, config)
    up = dict.fromkeys(names_of(config), UP)
    machine.balancer.reconcile(config, up)
    down = BackendStatus(State.DOWN, 0, False)
    change = machine.balancer.adjust({**up, **{(f"s{n}", "b1"): down for n in range(20)}}).change
    assert {type(step).__name__ for step in change.path.transaction} == {
        "AddElements",
        "DeleteElements",
    }


def test_least_connections_moves_elements_of_its_turns_alone(tmp_path: Path) -> None:
    least = Scheduler.LEAST_CONNECTIONS
    backends = [make_backend(number) for number in range(3)]
    config = make_config(
        make_service("s0", backends=backends, scheduler=least),
        make_service("s1", ["10.0.0.101"], backends=backends, scheduler=least),
    )
    machine = FakeMachine(tmp_path, config)
    up = dict.fromkeys(names_of(config), UP)
    machine.balancer.reconcile(config, up)
    change = machine.balancer.adjust(up, {"s0": {"b0": 1, "b1": 100, "b2": 100}}).change
    kinds = {(type(step).__name__, step.name.kind) for step in change.path.transaction}  # type: ignore[union-attr]
    assert kinds == {("DeleteElements", Kind.WRR), ("AddElements", Kind.WRR)}
    made = target_of(machine).numbered.wrr
    first, second = (made[number].table.slots for number in (1, 2))
    assert [first.count(number) for number in sorted(set(first))] == [5, 508, 508]
    assert max(map(second.count, set(second))) - min(map(second.count, set(second))) <= 1


def test_somebody_elses_change_is_noticed(tmp_path: Path) -> None:
    config = many(2)
    machine = FakeMachine(tmp_path, config)
    up = dict.fromkeys(names_of(config), UP)
    machine.balancer.reconcile(config, up)
    machine.balancer.adjust({**up, ("s0", "b1"): BackendStatus(State.DOWN, 0, False)})
    machine.nftables.commits += 1
    with pytest.raises(StaleError):
        machine.balancer.adjust(up)
    assert machine.balancer.applied is None, "only a full reconcile helps"
    assert machine.balancer.reconcile(config, up).change


def test_a_generation_is_never_0() -> None:
    assert next_generation(7) == 8
    assert next_generation(0xFFFFFFFF) == 1


def test_a_failover_waits_for_no_lock(tmp_path: Path) -> None:
    """Whoever holds the state directory's lock, and for whatever time."""
    config = make_config(make_service(backends=[make_backend(0), make_backend(1)]))
    machine = FakeMachine(tmp_path, config)
    machine.balancer.reconcile(config, dict.fromkeys(names_of(config), UP))
    down = {("web", "b1"): BackendStatus(State.DOWN, 0, False)}
    with Store(machine.store.directory).locked():
        assert machine.balancer.adjust({("web", "b0"): UP, **down}).change
