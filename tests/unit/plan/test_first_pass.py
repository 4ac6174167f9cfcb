"""Who gets nothing before the first pass: new backends, and nobody else."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from support.builders import make_backend, make_config, make_service
from tula.daemon.first_passes import FirstPasses
from tula.model.config import Config, PortRange, VirtualService
from tula.model.health import BackendName, Health, Override
from tula.model.monitor import HealthMonitor, HealthPolicy, TcpProbe
from tula.plan.backend_status import BackendStatuses, plan_backend_statuses
from tula.plan.first_pass import Waiting, plan_waiting, unchecked_problems

NOW = 1000.0
UP, DOWN = Health(True, 900.0, "status 200"), Health(False, 950.0, "refused")
B0, B1, B2 = (("web", f"b{number}") for number in range(3))
CHECKS = (HealthMonitor(TcpProbe()),)
POLICY = HealthPolicy(initial_up=False)


def web(count: int, name: str = "web", policy: HealthPolicy = POLICY) -> VirtualService:
    service = make_service(name, backends=[make_backend(number) for number in range(count)])
    return replace(service, health=CHECKS, policy=policy)


def stand(
    config: Config,
    findings: dict[BackendName, Health],
    waiting: set[BackendName],
    overrides: dict[BackendName, Override] | None = None,
    before: BackendStatuses | None = None,
) -> BackendStatuses:
    return plan_backend_statuses(
        config, findings, overrides or {}, NOW, {}, before, frozenset(waiting)
    )


def shown(statuses: BackendStatuses) -> dict[str, tuple[str, int, bool]]:
    return {name: (str(s.state), s.weight, s.present) for (_, name), s in statuses.of.items()}


def test_who_waits_is_down_until_it_passes() -> None:
    config = make_config(web(2))
    found = stand(config, {B0: UP}, {B1})
    assert shown(found) == {"b0": ("up", 100, True), "b1": ("down", 0, False)}
    waits = "not checked yet; gets traffic once its checks pass (initial: down)"
    assert found.of[B1].reason == waits
    seen = {B0: found.basis.findings[B0] if found.basis else UP, B1: Health(None, 0.0, "refused")}
    found = stand(config, seen, {B1}, before=found)
    assert found.of[B1].reason == f"{waits}; refused"
    found = stand(config, {**seen, B1: DOWN}, {B1}, before=found)
    assert (found.of[B1].state, found.of[B1].reason) == ("down", "refused")
    found = stand(config, {**seen, B1: UP}, {B1}, before=found)
    assert found.of[B1].state == "up"
    later = stand(config, {**seen, B1: UP}, set(), before=found)
    assert later.of[B1] is found.of[B1]


def test_who_waits_is_no_reason_to_panic_and_is_not_brought_in_by_it() -> None:
    config = make_config(web(3))
    alone = stand(config, {}, {B0, B1, B2})
    assert not alone.panicking
    assert set(shown(alone).values()) == {("down", 0, False)}
    failed = stand(config, {B0: DOWN, B1: DOWN, B2: DOWN}, {B0, B1, B2})
    assert not failed.panicking, "none of them has ever passed"
    others = stand(config, {B0: DOWN, B1: DOWN}, {B2})
    assert others.panicking == {"web"}
    assert shown(others) == {
        "b0": ("down", 100, True),
        "b1": ("down", 100, True),
        "b2": ("down", 0, False),
    }


def test_the_operator_is_heard_before_that() -> None:
    config = make_config(web(2))
    found = stand(config, {}, {B0, B1}, {B0: Override(disable=True), B1: Override(drain=True)})
    assert [found.of[name].state for name in (B0, B1)] == ["disabled", "down"]


NO_ONE: Waiting = frozenset()


@pytest.mark.parametrize(
    ("before", "after", "waiting"),
    [
        (web(2), web(3), {B2}),
        (web(2), web(2), set()),
        (web(2, policy=HealthPolicy()), web(2), set()),
        (replace(web(2), health=()), web(2), set()),
        (web(2), web(3, policy=HealthPolicy()), set()),
        (web(2), web(3, name="site"), {("site", "b2")}),
        (web(2), replace(web(2, name="site"), ports=(PortRange(443, 443),)), "all"),
        (web(2), replace(web(2, name="site"), vips=(ip_address("10.0.0.101"),)), "all"),
    ],
    ids=["one-more", "same", "was-up", "was-unchecked", "is-up", "renamed", "ports", "vip"],
)
def test_only_what_is_new_waits(
    before: VirtualService, after: VirtualService, waiting: set[BackendName] | str
) -> None:
    expected = {("site", "b0"), ("site", "b1")} if waiting == "all" else waiting
    assert plan_waiting(make_config(before), NO_ONE, make_config(after)) == expected


def test_a_renamed_backend_is_the_same_and_another_address_is_not() -> None:
    first, second = make_backend(0), make_backend(1)
    before = make_config(replace(web(0), backends=(first, second)))
    renamed = make_config(replace(web(0), backends=(replace(first, name="x"), second)))
    moved = make_config(
        replace(web(0), backends=(replace(first, addresses=make_backend(7).addresses), second))
    )
    assert plan_waiting(before, NO_ONE, renamed) == NO_ONE
    assert plan_waiting(before, frozenset({B0}), renamed) == {("web", "x")}
    assert plan_waiting(before, NO_ONE, moved) == {B0}


def test_a_service_beside_the_one_that_serves_is_new() -> None:
    site = replace(web(2, name="site"), ports=(PortRange(443, 443),))
    found = plan_waiting(make_config(web(2)), NO_ONE, make_config(web(2), site))
    assert found == {("site", "b0"), ("site", "b1")}


def test_over_a_daemons_life() -> None:
    serving: set[BackendName] = {B0}
    passes = FirstPasses(lambda _: frozenset(serving))
    one, other = make_config(web(2)), make_config(web(1))
    passes.start(one)
    assert passes.waiting == {B1}, "the kernel sends packets to the other"
    assert passes.plan(one, {B0: DOWN}) == {B1}
    passes.take(one, passes.plan(one, {B1: UP}))
    assert passes.plan(one, {B1: DOWN}) == NO_ONE, "once is enough"
    passes.take(other, passes.plan(other, {}))
    # What was taken back serves as it did before; what is given anew is new.
    assert passes.plan(one, {}) == NO_ONE
    assert passes.plan(make_config(web(2)), {}) == {B1}


def test_the_first_configuration_goes_by_the_kernel_too() -> None:
    passes = FirstPasses(lambda _: frozenset({B0}))
    assert passes.plan(make_config(web(2)), {}) == {B1}
    assert FirstPasses(lambda _: NO_ONE).plan(make_config(web(2)), {B0: UP}) == {B1}

    def never(_: Config) -> frozenset[BackendName]:
        raise AssertionError("nobody asks where nobody waits")

    plain = make_config(web(2, policy=HealthPolicy()))
    assert FirstPasses(never).plan(plain, {}) == NO_ONE


def test_without_a_daemon_it_is_refused_once() -> None:
    config = make_config(web(1), replace(web(1, name="site"), ports=(PortRange(443, 443),)))
    (problem,) = unchecked_problems(config)
    assert problem.path == ("services", "web", "health", "initial")
    assert problem.message.startswith("service web (and 1 more) has initial: down, and nothing")
    assert not list(unchecked_problems(make_config(web(1, policy=HealthPolicy()))))
