"""What the watch does, and when, in virtual time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace

import pytest

from tula.agent.agent import Repair
from tula.agent.diff import BackendStep
from tula.agent.watch import Budget, Severity, Watch
from tula.kernel.events import Events
from tula.model.errors import KernelError

VIP = BackendStep("add", "address", "10.0.0.100 on lo", "missing", ())


class Machine:
    """Agent, events and clock in one; each look takes a time, and answers from a list."""

    def __init__(self, looks: list[Repair | KernelError | None], cost: float = 0.04) -> None:
        self.now = 0.0
        self.at: list[float] = []
        self.said: list[tuple[Severity, str]] = []
        self._looks = iter(looks)
        self._cost = cost
        self._reader, writer = os.pipe()
        os.close(writer)  # always readable: something happens all the time

    def repair(self, _roles: object) -> Repair | None:
        self.at.append(self.now)
        self.now += self._cost
        found = next(self._looks)
        if isinstance(found, KernelError):
            raise found
        return found

    def settings(self) -> dict[str, str]:
        return {}

    def filenos(self) -> tuple[int, ...]:
        return (self._reader,)

    def drain(self) -> Events:
        return Events(network=True)

    def muted(self) -> AbstractContextManager[None]:
        return nullcontext()

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def run(self) -> None:
        def tell(severity: Severity, text: str) -> None:
            self.said.append((severity, text))

        Watch(self, self, lambda _: [], tell, lambda: self.now, self.sleep).run()  # type: ignore[arg-type]
        os.close(self._reader)


def test_it_repairs_at_once_and_ends_when_the_machine_has_left() -> None:
    machine = Machine([Repair((VIP,)), Repair(), None])
    machine.run()
    assert machine.at == pytest.approx([0, 0.04, 0.08])
    assert machine.said == [
        (Severity.WARNING, "repaired address 10.0.0.100 on lo (missing)"),
        (Severity.INFO, "this machine is no longer a backend"),
    ]


def test_events_without_end_cost_a_twentieth_of_a_cpu() -> None:
    machine = Machine([*[Repair()] * 1000, None])
    machine.run()
    assert 0.04 * 1000 / machine.now == pytest.approx(0.05, rel=0.05)


def test_a_fight_slows_down_and_is_told_once() -> None:
    machine = Machine([*[Repair((VIP,))] * 30, None])
    machine.run()
    assert machine.at[9] < 1
    assert machine.at[-1] - machine.at[-2] == pytest.approx(6, abs=0.1)
    told = [text for severity, text in machine.said if severity is Severity.ERROR]
    assert len(told) == 1
    assert "again and again: address 10.0.0.100 on lo" in told[0]


def test_what_fails_twice_is_told_once_until_it_is_well() -> None:
    failed = Repair((), ((VIP, "ip: refused"),))
    broken = KernelError("disk full")
    once = [failed, Repair()]
    machine = Machine(
        [*once, failed, failed, failed, broken, broken, Repair(), failed, failed, None]
    )
    machine.run()
    assert [text for severity, text in machine.said if severity is Severity.ERROR] == [
        "not repaired: address 10.0.0.100 on lo (missing): ip: refused",
        "cannot look after this backend: disk full",
        "not repaired: address 10.0.0.100 on lo (missing): ip: refused",
    ]


def test_many_are_one_line() -> None:
    many = tuple(replace(VIP, name=f"10.0.0.{n} on lo") for n in range(500))
    table = BackendStep("add", "table", "tula_backend", "missing", ())
    failed = Repair((), tuple((step, "ip: refused") for step in many))
    machine = Machine([Repair((table, *many)), failed, failed, None])
    machine.run()
    assert [text for _, text in machine.said[:-1]] == [
        "repaired table tula_backend (missing)",
        "repaired addresses 10.0.0.0 on lo, 10.0.0.1 on lo, 10.0.0.2 on lo, 10.0.0.3 on lo, "
        "10.0.0.4 on lo and 495 more (missing)",
        "not repaired: address 10.0.0.0 on lo (missing): ip: refused; and 499 others",
    ]


def spent(budget: Budget, times: list[tuple[float, float]]) -> Iterator[float]:
    for amount, now in times:
        yield budget.spend(amount, now)


def test_a_budget_comes_back_up_to_its_limit() -> None:
    budget = Budget(2, 0.5, longest=3)
    assert list(spent(budget, [(2, 0), (1, 0), (0, 2), (2, 100), (1, 100)])) == [0, 2, 0, 0, 2]
    assert list(spent(budget, [(9, 200), (0, 203)])) == [3, 0]


def test_a_slow_machine_repairs_within_seconds() -> None:
    machine = Machine([*[Repair()] * 100, None], cost=2.0)
    machine.run()
    assert machine.at[-1] - machine.at[-2] == pytest.approx(3)
