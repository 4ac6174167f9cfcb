"""How backends count: by their monitors, by the operator, by time."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.builders import make_backend, make_config, make_service
from tula.model.advice import Admin, Advice, GivenWeight
from tula.model.config import Backend, Config
from tula.model.health import BackendName, BackendStatus, Health, Override, State
from tula.model.monitor import HealthMonitor, HealthPolicy, TcpProbe
from tula.plan.backend_status import (
    BackendStatuses,
    absent_backends,
    effective_config,
    plan_backend_statuses,
    returned,
)

NOW = 1000.0
A, B, C = (("web", f"b{number}") for number in range(3))
UP, DOWN = Health(True, 900.0, "status 200"), Health(False, 950.0, "connection refused")


def web(*backends: Backend, policy: HealthPolicy | None = None, checked: bool = True) -> Config:
    """One service of three backends unless others are given."""
    service = make_service(backends=backends or [make_backend(number) for number in range(3)])
    health = (HealthMonitor(TcpProbe()),) if checked else ()
    return make_config(replace(service, health=health, policy=policy or HealthPolicy()))


def stand(
    config: Config,
    findings: dict[BackendName, Health] | None = None,
    overrides: dict[BackendName, Override] | None = None,
    now: float = NOW,
    entered: dict[BackendName, float] | None = None,
) -> BackendStatuses:
    return plan_backend_statuses(config, findings or {}, overrides or {}, now, entered)


def shown(statuses: BackendStatuses) -> dict[str, tuple[str, int, bool]]:
    return {name: (str(s.state), s.weight, s.present) for (_, name), s in statuses.of.items()}


def test_what_was_never_checked_is_in_service() -> None:
    assert set(shown(stand(web())).values()) == {("unknown", 100, True)}
    assert stand(web()).of[A].reason == "not checked yet"
    assert stand(web(checked=False)).of[A].reason == ""


def test_what_is_down_gets_nothing_and_loses_its_flows() -> None:
    found = stand(web(), {A: UP, B: DOWN})
    assert shown(found) == {
        "b0": ("up", 100, True),
        "b1": ("down", 0, False),
        "b2": ("unknown", 100, True),
    }
    assert found.of[B].reason == "connection refused"
    assert absent_backends(found.of) == {B}


def test_a_drained_backend_keeps_its_flows() -> None:
    found = stand(web(), {A: UP}, {A: Override(drain=True), B: Override(weight=0)})
    assert shown(found)["b0"] == ("draining", 0, True)
    assert shown(found)["b1"] == ("draining", 0, True)
    assert found.until is None


def test_a_drain_ends_at_its_deadline() -> None:
    said = {A: Override(drain=True, deadline=NOW + 5)}
    before = stand(web(), {A: UP}, said)
    assert (before.of[A].state, before.until) == (State.DRAINING, NOW + 5)
    after = stand(web(), {A: UP}, said, NOW + 5)
    assert (after.of[A].state, after.of[A].present, after.until) == (State.DISABLED, False, None)


def test_a_drained_backend_that_dies_is_down_and_a_disabled_one_is_disabled() -> None:
    said = {A: Override(drain=True), B: Override(disable=True)}
    found = stand(web(), {A: DOWN, B: DOWN, C: UP}, said)
    assert shown(found)["b0"] == ("down", 0, False)
    assert shown(found)["b1"] == ("disabled", 0, False)


def test_the_operators_weight_goes_before_the_documents() -> None:
    assert shown(stand(web(), {A: UP}, {A: Override(weight=7)}))["b0"] == ("up", 7, True)


def test_a_weight_rises_in_steps_after_a_return() -> None:
    config = web(policy=HealthPolicy(slow_start=10.0))
    weights, at = [], NOW
    while True:
        found = stand(config, {A: UP, B: UP, C: UP}, now=at, entered={A: NOW})
        weights.append(found.of[A].weight)
        assert found.of[B].weight == 100, "it was up all the time"
        if found.until is None:
            break
        assert found.until > at
        at = found.until
    assert weights == [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]
    assert at < NOW + 10


def test_a_small_weight_starts_at_one() -> None:
    config = web(make_backend(0, 3), policy=HealthPolicy(slow_start=10.0))
    assert stand(config, {A: UP}, entered={A: NOW}).of[A].weight == 1


def test_all_serve_when_all_are_down() -> None:
    found = stand(web(), {A: DOWN, B: DOWN, C: DOWN})
    assert set(shown(found).values()) == {("down", 100, True)}
    assert found.panicking == {"web"}
    assert "serves anyway" in found.of[A].reason


@pytest.mark.parametrize(
    ("panic", "down", "panics"),
    [
        (0, [A, B], False),
        (None, [A, B, C], False),
        (50, [A], False),
        (50, [A, B], True),
        (33, [A, B], False),
        (34, [A, B], True),
        (100, [A], True),
        (100, [], False),
    ],
)
def test_the_panic_threshold(panic: int | None, down: list[BackendName], panics: bool) -> None:
    found = stand(web(policy=HealthPolicy(panic=panic)), dict.fromkeys(down, DOWN))
    assert bool(found.panicking) is panics


def test_panic_leaves_alone_whom_the_operator_took_out() -> None:
    said = {A: Override(disable=True), B: Override(drain=True)}
    found = stand(web(), {A: DOWN, B: DOWN, C: DOWN}, said)
    assert shown(found) == {
        "b0": ("disabled", 0, False),
        "b1": ("down", 0, False),
        "b2": ("down", 100, True),
    }


def test_the_effective_document_keeps_what_does_not_change() -> None:
    config = web()
    statuses = stand(config, {A: DOWN, B: UP, C: UP}).of
    effective = effective_config(config, statuses)
    assert [backend.weight for backend in effective.services[0].backends] == [0, 100, 100]
    assert effective.services[0].backends[1] is config.services[0].backends[1]
    assert effective_config(config, stand(config).of).services[0] is config.services[0]


def test_who_returned() -> None:
    down, up = BackendStatus(State.DOWN, 0, False), BackendStatus(State.UP, 100, True)
    unknown = BackendStatus(State.UNKNOWN, 100, True)
    assert list(returned({A: down, B: unknown}, {A: up, B: up, C: up})) == [A]


def said(up: bool | None = True, **advice: object) -> Health:
    return Health(up, 0.0, "down" if up is False else "", advice=(Advice(0, **advice),))


HALF = {"weight": GivenWeight(50, percent=True)}
DRAINS = {"admin": Admin.DRAIN, "cause": "answered 404"}


def one(finding: Health, override: Override | None = None, **more: object) -> BackendStatus:
    """How the first of two backends stands."""
    overrides = {} if override is None else {("web", "b1"): override}
    config = more.pop("config", web(make_backend(1), make_backend(2)))
    return plan_backend_statuses(
        config, {("web", "b1"): finding}, overrides, more.pop("now", 0.0), **more
    ).of["web", "b1"]


def test_a_checks_weight_counts_and_the_operators_before_it() -> None:
    assert one(said(**HALF)) == BackendStatus(State.UP, 50, True, "its check says 50%")
    assert one(said(None, **HALF)) == BackendStatus(
        State.UNKNOWN, 50, True, "not checked yet; its check says 50%"
    )
    assert one(said(weight=GivenWeight(0))) == BackendStatus(
        State.DRAINING, 0, True, "its check says 0"
    )
    assert one(said(**HALF), Override(weight=80)) == BackendStatus(
        State.UP, 80, True, "its check says 50%, but the operator 80"
    )
    assert one(said(weight=GivenWeight(0)), Override(weight=80)).weight == 80
    assert one(said(**HALF), Override(weight=0)).state is State.DRAINING
    assert one(said(False, **HALF)).state is State.DOWN


def test_a_check_drains_or_takes_out_whatever_the_weights_are() -> None:
    drained = BackendStatus(State.DRAINING, 0, True, "drains: its check answered 404")
    assert one(said(**DRAINS)) == drained
    assert one(said(None, **DRAINS)) == drained
    assert one(said(**DRAINS), Override(weight=80)) == drained
    assert one(said(**DRAINS), Override(drain=True)).reason == "drained by the operator"
    maint = said(False, admin=Admin.MAINT, cause="says maint", who="its agent")
    assert one(maint) == BackendStatus(State.DISABLED, 0, False, "its agent says maint")


def test_a_slow_start_rises_to_the_weight_that_counts() -> None:
    config = web(make_backend(1), make_backend(2), policy=HealthPolicy(slow_start=100.0))
    started = {("web", "b1"): 0.0}
    status = one(said(**HALF), config=config, entered=started, now=45.0)
    assert (status.weight, status.reason) == (
        25,
        "its weight rises (slow start); its check says 50%",
    )


def test_panic_does_not_count_on_those_that_drain_themselves() -> None:
    config = web(make_backend(1), make_backend(2))
    findings = {("web", "b1"): said(**DRAINS), ("web", "b2"): Health(False, 0.0, "down")}
    statuses = plan_backend_statuses(config, findings, {}, 0.0)
    assert statuses.panicking == {"web"}
    assert shown(statuses)["b2"][1] == 100
    assert shown(statuses)["b1"] == ("draining", 0, True)
