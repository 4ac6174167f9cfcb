"""Somebody sets the clock, or the machine starts again: what takes time takes that time."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.builders import FakeMachine, make_config, number_config
from tula.config.load import parse_config
from tula.daemon.reconciler import Reconciler
from tula.dataplane.nft.ids import Ids
from tula.engine.balancer import Balancer
from tula.engine.event_log import EventLog
from tula.engine.overrides import override_change
from tula.engine.store import Remembered, Store
from tula.kernel.clock import SystemClock
from tula.kernel.nft_memory import dump_ids, recall_ids
from tula.model.health import BackendName, Health, Override, State

CONFIGURATION = b"""
interfaces: [eth0]
services:
  web:
    vip: 10.0.0.100
    ports: [80]
    forwarding: l2
    health: {type: tcp, slow_start: 20s}
    backends:
      a: {address: 10.0.0.11, weight: 100}
      b: {address: 10.0.0.12, weight: 100}
"""
A: BackendName = ("web", "a")
UP, DOWN = Health(True, 0.0), Health(False, 0.0)
HOUR, MINUTE = 3600.0, 60.0


@dataclass
class FakeClock:
    """A machine that was started a while ago, and set at the time."""

    booted: float = 5000.0
    walled: float = 1_700_000_000.0
    boot_number: int = 1

    def boot(self) -> float:
        return self.booted

    def wall(self) -> float:
        return self.walled

    def boot_id(self) -> str:
        return f"boot-{self.boot_number}"

    def go_on(self, seconds: float) -> None:
        """Time passes."""
        self.booted += seconds
        self.walled += seconds

    def reboot(self, seconds: float) -> None:
        """The machine is off for that long."""
        self.walled += seconds
        self.booted = 0.0
        self.boot_number += 1


class Machine:
    """Its state directory and kernel outlive daemons."""

    def __init__(self, directory: Path) -> None:
        self.clock = FakeClock()
        self.fake = FakeMachine(directory, parse_config(CONFIGURATION).config)
        self.store = Store(directory, clock=self.clock)
        self.reconciler = self.start()
        self.reconciler.accept(parse_config(CONFIGURATION), {A: UP})

    def start(self) -> Reconciler:
        """A daemon that starts."""
        boot, wall = self.clock.boot, self.clock.wall
        balancer = Balancer(self.fake.adapters, self.store, boot)
        self.reconciler = Reconciler(balancer, self.store, EventLog(wall), boot, wall)
        self.reconciler.start()
        return self.reconciler

    def drain(self, deadline: float) -> None:
        change = override_change("drain", self.clock.boot(), deadline=deadline)
        self.reconciler.override(A, change(Override()))
        assert self.state() is State.DRAINING

    def state(self) -> State:
        """After a cycle, as anything may bring it about."""
        self.cycle(UP)
        return self.reconciler.statuses.of[A].state

    def cycle(self, finding: Health) -> int:
        """The weight after it."""
        assert not self.reconciler.cycle({A: finding}, compare=False).error
        return self.reconciler.statuses.of[A].weight


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


SET = pytest.mark.parametrize("by", [HOUR, -HOUR, 30 * 365 * 24 * HOUR], ids=str)


@SET
@pytest.mark.parametrize("restarted", [False, True], ids=["", "and the daemon started again"])
def test_a_drain_takes_its_time_though_the_clock_is_set(
    machine: Machine, by: float, restarted: bool
) -> None:
    machine.drain(10 * MINUTE)
    machine.clock.go_on(2 * MINUTE)
    machine.clock.walled += by
    if restarted:
        machine.start()
    assert machine.state() is State.DRAINING
    assert machine.reconciler.statuses.until == machine.clock.booted + 8 * MINUTE
    machine.clock.go_on(8 * MINUTE - 1)
    assert machine.state() is State.DRAINING
    machine.clock.go_on(1)
    assert machine.state() is State.DISABLED


@SET
def test_a_slow_start_takes_its_time_though_the_clock_is_set(machine: Machine, by: float) -> None:
    machine.cycle(DOWN)
    assert machine.cycle(UP) == 10
    machine.clock.go_on(3)
    assert machine.cycle(UP) == 20
    machine.clock.walled += by
    assert machine.cycle(UP) == 20
    weights = []
    while (until := machine.reconciler.statuses.until) is not None:
        machine.clock.go_on(until - machine.clock.booted)
        weights.append(machine.cycle(UP))
    assert weights == [30, 40, 50, 60, 70, 80, 90, 100]
    assert machine.clock.booted == 5018.0


def test_a_drain_goes_on_after_a_reboot(machine: Machine) -> None:
    """The time that the machine was off counts, as far as the other clock tells."""
    machine.drain(10 * MINUTE)
    machine.clock.go_on(1 * MINUTE)
    machine.clock.reboot(3 * MINUTE)
    machine.start()
    assert machine.state() is State.DRAINING
    assert machine.reconciler.statuses.until == pytest.approx(6 * MINUTE)
    machine.clock.walled += HOUR  # set only now, as where no battery keeps the time
    machine.clock.go_on(5 * MINUTE)
    assert machine.state() is State.DRAINING
    machine.clock.go_on(1 * MINUTE)
    assert machine.state() is State.DISABLED


def test_a_drain_whose_deadline_came_while_the_machine_was_off_is_over(machine: Machine) -> None:
    machine.drain(10 * MINUTE)
    machine.clock.reboot(HOUR)
    machine.start()
    assert machine.state() is State.DISABLED


def test_what_an_earlier_version_kept_is_read(machine: Machine) -> None:
    """By the wall clock alone; and an earlier version finds what it looks for."""
    machine.drain(10 * MINUTE)
    file = machine.store.directory / "overrides.json"
    data = json.loads(file.read_text())
    kept = data["backends"]["web/a"]
    assert kept["deadline"] == machine.clock.walled + 10 * MINUTE
    del kept["boot"]
    file.write_text(json.dumps(data))
    machine.clock.go_on(4 * MINUTE)
    machine.start()
    assert machine.state() is State.DRAINING
    assert machine.reconciler.statuses.until == machine.clock.booted + 6 * MINUTE


def test_what_the_clock_of_this_machine_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a clock of the tests: what is built as the daemon builds it."""
    machine = FakeMachine(tmp_path, parse_config(CONFIGURATION).config)
    reconciler = Reconciler(machine.balancer, machine.store, EventLog())
    reconciler.start()
    reconciler.accept(parse_config(CONFIGURATION), {A: UP})
    reconciler.override(A, override_change("drain", SystemClock().boot(), deadline=600)(Override()))
    real = time.time
    for by in (HOUR, -HOUR):
        monkeypatch.setattr(time, "time", lambda by=by: real() + by)
        assert not reconciler.cycle({A: UP}, compare=True).error
        assert reconciler.statuses.of[A].state is State.DRAINING
        assert reconciler.configurations.accepted_at is not None
        assert abs(reconciler.configurations.accepted_at - real()) < HOUR, "people read that one"


def test_numbers_are_kept_as_long_as_flows_may_have_them(tmp_path: Path) -> None:
    clock = FakeClock()
    config = make_config()
    known = number_config(config, Ids({"web": 7}, {"10.0.0.1": 3}), clock.boot())
    assert set(known.left_services) == {"web"}
    longest = config.connections.tcp

    def later() -> Ids:
        remembered = Store(tmp_path, clock=clock).remembered()
        return number_config(config, recall_ids(remembered.path, clock), clock.boot())

    Store(tmp_path, clock=clock).save_remembered(Remembered(dump_ids(known, clock)))
    assert recall_ids(Store(tmp_path, clock=clock).remembered().path, clock) == known
    clock.walled += 30 * 24 * HOUR
    assert set(later().left_services) == {"web"}
    clock.walled -= 60 * 24 * HOUR
    clock.go_on(longest)
    assert set(later().left_backends) == {"10.0.0.1"}
    clock.go_on(1)
    assert later().left_services == {}


def test_memory_of_an_earlier_version_and_of_another_boot(tmp_path: Path) -> None:
    clock = FakeClock()
    store = Store(tmp_path, clock=clock)
    ids = Ids(left_services={"web": (7, clock.boot() - 100)})
    store.save_remembered(Remembered(dump_ids(ids, clock)))
    data = json.loads((tmp_path / "memory.json").read_text())
    assert data["left_services"] == {"web": [7, clock.walled - 100]}
    del data["boot"]
    (tmp_path / "memory.json").write_text(json.dumps(data))
    assert recall_ids(store.remembered().path, clock) == ids
    store.save_remembered(Remembered(dump_ids(ids, clock)))
    clock.reboot(50)
    expected = Ids(left_services={"web": (7, -150.0)})
    assert recall_ids(store.remembered().path, clock) == expected


def test_the_clock_of_this_machine() -> None:
    clock = SystemClock()
    first = clock.boot()
    assert first <= clock.boot()
    assert abs(clock.wall() - time.time()) < HOUR
    assert clock.boot_id() == SystemClock().boot_id() != ""
