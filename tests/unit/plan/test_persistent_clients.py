"""Who keeps its persistent clients, by statuses as they are planned."""

from __future__ import annotations

from dataclasses import replace

import pytest

from support.builders import make_backend, make_config, make_service
from tula.engine.overrides import changed_overrides, override_change
from tula.engine.shared_digest import overrides_digest
from tula.model.health import Health, Override, State
from tula.model.persistence import ClientsOfDrained, Persistence
from tula.plan.backend_status import moved_services, plan_backend_statuses
from tula.plan.persistent_clients import keeps_clients

B1 = ("web", "b1")
KEEP, RELEASE = ClientsOfDrained


@pytest.mark.parametrize(
    ("drain", "override", "weight", "keeps", "reason"),
    [
        (KEEP, Override(), 100, True, ""),
        (KEEP, Override(drain=True), 100, True, "drained by the operator; keeps its persistent"),
        (
            KEEP,
            Override(drain=True, release=True),
            100,
            False,
            "its persistent clients are released",
        ),
        (RELEASE, Override(drain=True), 100, False, "its persistent clients are released"),
        (KEEP, Override(weight=0), 100, True, "its weight is 0; keeps its persistent clients"),
        (KEEP, Override(), 0, True, "its weight is 0; keeps its persistent clients"),
        (RELEASE, Override(), 0, False, "its weight is 0; its persistent clients are released"),
        (KEEP, Override(disable=True), 100, False, "disabled by the operator"),
        (KEEP, Override(drain=True, deadline=5.0), 100, False, "its drain ended at the deadline"),
    ],
)
def test_who_keeps_its_clients(
    drain: ClientsOfDrained, override: Override, weight: int, keeps: bool, reason: str
) -> None:
    service = make_service(backends=[make_backend(1, weight), make_backend(2)])
    service = replace(service, persistence=Persistence(60.0, drain=drain))
    found = plan_backend_statuses(make_config(service), {}, {B1: override}, 10.0).of
    backend = replace(service.backends[0], weight=found[B1].weight)
    assert keeps_clients(service, backend, found) is keeps
    assert reason in found[B1].reason


def test_what_goes_down_keeps_nobody() -> None:
    service = replace(make_service(backends=[make_backend(1), make_backend(2)]))
    service = replace(service, persistence=Persistence(60.0))
    found = plan_backend_statuses(make_config(service), {B1: Health(False, 0.0)}, {}, 10.0).of
    assert found[B1].state is State.DOWN
    assert not keeps_clients(service, replace(service.backends[0], weight=0), found)


def test_a_release_of_what_drains_already_moves_its_service() -> None:
    service = replace(make_service(backends=[make_backend(1)]), persistence=Persistence(60.0))
    config = make_config(service)
    drained = changed_overrides({}, B1, override_change("drain", 1.0))
    released = changed_overrides(drained, B1, override_change("drain", 2.0, release=True))
    have, want = (plan_backend_statuses(config, {}, each, 10.0).of for each in (drained, released))
    assert moved_services(have, want) == {"web"}
    ended = changed_overrides(released, B1, override_change("undrain", 3.0))
    assert not ended.get(B1, Override()).release
    assert overrides_digest(drained) != overrides_digest(released)
