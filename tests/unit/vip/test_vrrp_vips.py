"""The owner of VIPs by VRRP, on an engine of values."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_interface

import pytest

from support.builders import FakeMachine, make_backend, make_config, make_service
from tula.kernel.engines import FakeEngine
from tula.model.config import Config
from tula.model.errors import KernelError
from tula.model.high_availability import HighAvailability, Vrrp
from tula.model.host import HostAddress
from tula.model.problem import ProblemsError

SERVICE = make_service(backends=[make_backend(1)])
ALONE = make_config(SERVICE)
PAIR = replace(
    ALONE,
    load_balancers=(("lb1", ip_address("10.0.0.2")), ("lb2", ip_address("10.0.0.3"))),
    high_availability=HighAvailability(vrrp=Vrrp(84)),
)
VIP = str(SERVICE.vips[0])


@pytest.fixture
def machine(tmp_path_factory: pytest.TempPathFactory) -> FakeMachine:
    made = FakeMachine(tmp_path_factory.mktemp("state"), PAIR)
    host = made.network.host
    own = HostAddress("eth0", ip_interface("10.0.0.2/24"))
    if own not in host.addresses:
        made.network.host = replace(host, addresses=(*host.addresses, own))
    return made


def keepalived(machine: FakeMachine) -> FakeEngine:
    engine = machine.engines.keepalived
    assert isinstance(engine, FakeEngine)
    return engine


def apply(machine: FakeMachine, config: Config) -> list[str]:
    outcome = machine.balancer.apply(config, repr(config).encode())
    assert not outcome.warnings
    return [f"{step.verb} {step.what} {step.name}" for step in outcome.change.steps()]


def test_from_static_to_vrrp_and_back(machine: FakeMachine) -> None:
    engine = keepalived(machine)
    apply(machine, ALONE)
    assert len(machine.network.host.owned) == len(SERVICE.vips)
    steps = apply(machine, PAIR)
    assert "add engine keepalived" in steps
    assert f"remove address {VIP}" in steps
    assert not machine.network.host.owned
    assert engine.calls == ["start"]
    assert engine.files["services"] == "100\n"
    assert engine.files["standby"] == "0\n"
    assert apply(machine, PAIR) == []
    assert "remove engine keepalived" in apply(machine, ALONE)
    assert engine.calls == ["start", "stop"]
    assert len(machine.network.host.owned) == len(SERVICE.vips)


def test_a_change_is_a_reload(machine: FakeMachine) -> None:
    engine = keepalived(machine)
    apply(machine, PAIR)
    settings = HighAvailability(vrrp=Vrrp(84, interval=1.0))
    assert apply(machine, replace(PAIR, high_availability=settings)) == ["change engine keepalived"]
    assert engine.calls == ["start", "reload"]
    assert "advert_int 1\n" in engine.files["keepalived.conf"]


def test_what_its_checker_refuses_changes_nothing(machine: FakeMachine) -> None:
    engine = keepalived(machine)
    apply(machine, ALONE)
    engine.refuse = "line 3: no"
    with pytest.raises(KernelError, match="keepalived refuses its generated file: line 3: no"):
        machine.balancer.apply(PAIR, b"pair")
    assert engine.read() is None
    assert len(machine.network.host.owned) == len(SERVICE.vips)
    assert machine.store.configuration() != b"pair"


def test_without_keepalived(machine: FakeMachine) -> None:
    engine = keepalived(machine)
    engine.absent = True
    with pytest.raises(ProblemsError, match="keepalived is not installed"):
        machine.balancer.apply(PAIR, b"pair")
    with pytest.raises(ProblemsError, match="keepalived is not installed"):
        machine.balancer.plan(PAIR, b"pair")
    repair = machine.balancer.reconcile(PAIR, {})
    assert any("not installed" in problem.message for problem in repair.problems)
    assert engine.read() is None


def test_a_machine_that_is_no_balancer(machine: FakeMachine) -> None:
    others = (("lb2", ip_address("10.0.0.3")), ("lb3", ip_address("10.0.0.4")))
    with pytest.raises(ProblemsError, match="none of them is an address of this machine"):
        machine.balancer.apply(replace(PAIR, load_balancers=others), b"others")


def test_an_engine_waits_until_it_may_start(machine: FakeMachine) -> None:
    engine, vips = keepalived(machine), machine.adapters.vips
    vips.hold()
    apply(machine, PAIR)
    assert engine.read() is None
    assert apply(machine, PAIR) == [], "no difference each time"
    assert vips.revive() == []
    assert vips.let_go() == []
    assert engine.calls == ["start"]
    assert engine.read() is not None
    engine.alive = False
    assert vips.revive() == ["keepalived had ended, and was started again"]


def test_one_that_runs_does_not_wait(machine: FakeMachine) -> None:
    engine, vips = keepalived(machine), machine.adapters.vips
    apply(machine, PAIR)
    vips.hold()
    assert apply(machine, PAIR) == []
    settings = HighAvailability(vrrp=Vrrp(85))
    apply(machine, replace(PAIR, high_availability=settings))
    assert engine.calls == ["start", "reload"]


def test_where_systemd_starts_it(machine: FakeMachine) -> None:
    engine = keepalived(machine)
    engine.kept = True
    apply(machine, PAIR)
    assert engine.alive
    assert engine.calls == ["reload"]
    engine.alive = False
    assert apply(machine, PAIR) == []
    assert machine.adapters.vips.revive() == []


def test_clear_ends_it(machine: FakeMachine) -> None:
    engine = keepalived(machine)
    apply(machine, PAIR)
    commands = [str(each) for each in machine.adapters.vips.removal()]
    assert commands == ["rm -f /run/tula/keepalived/keepalived.conf", "kill 4711"]
    machine.balancer.clear()
    assert engine.read() is None
    assert not engine.alive
