"""Which backends serve: the planning against the contract, read plainly."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from support.builders import make_backend, make_config, make_service
from tula.engine.event_log import state_events
from tula.model.config import Config, OnDown, VirtualService
from tula.model.event import EventKind
from tula.model.health import BackendName, Health, Override, State
from tula.model.monitor import HealthMonitor, HealthPolicy, TcpProbe
from tula.plan.backend_status import BackendStatuses, plan_backend_statuses
from tula.plan.first_pass import Waiting
from tula.plan.high_availability import served
from tula.plan.losses import describe_override_losses
from tula.plan.pools import kept_while_down, serves_by_backups

NOW = 1000.0
UP, DOWN, UNKNOWN = Health(True, 1.0), Health(False, 1.0, "refused"), Health(None, 1.0)


def pool(*levels: int, minimum: int = 1, panic: int | None = 0, **keys: object) -> VirtualService:
    """A service of backends of these levels, ``b0`` and so on."""
    backends = [replace(make_backend(n), backup=level) for n, level in enumerate(levels)]
    service = make_service(backends=backends, health=[HealthMonitor(TcpProbe())])
    return replace(service, minimum=minimum, policy=HealthPolicy(panic=panic), **keys)  # type: ignore[arg-type]


def stand(
    service: VirtualService,
    health: str,
    overrides: dict[int, Override] | None = None,
    before: BackendStatuses | None = None,
    config: Config | None = None,
) -> BackendStatuses:
    """``health``: a letter a backend, u(p), d(own) or ? (not checked yet)."""
    found = {"u": UP, "d": DOWN, "?": UNKNOWN}
    findings = {("web", f"b{n}"): found[letter] for n, letter in enumerate(health)}
    said = {("web", f"b{n}"): override for n, override in (overrides or {}).items()}
    config = config or make_config(service)
    return plan_backend_statuses(config, findings, said, NOW, before=before)


def serving(statuses: BackendStatuses) -> str:
    return "".join(name[1] for (_, name), s in sorted(statuses.of.items()) if s.weight)


def test_the_lowest_level_that_can() -> None:
    service = pool(0, 0, 1, 1, 2)
    wanted = {
        "uuuuu": "01", "duuuu": "1", "dduuu": "23", "ddduu": "3", "ddddu": "4",
        "ddddd": "01", "ddud?": "2", "?duuu": "0", "dddd?": "4",
    }  # fmt: skip
    assert {health: serving(stand(service, health)) for health in wanted} == wanted
    found = stand(service, "uuuuu")
    spare = found.of["web", "b4"]
    assert (spare.state, spare.weight, spare.present) == (State.UP, 0, True)
    assert (spare.stands_by, spare.reason) == (True, "stands by as backup, level 2")
    assert (found.backups, found.short, found.panicking) == ({}, frozenset(), frozenset())
    assert stand(service, "dddd?").backups == {"web": 2}


def test_fewer_than_the_minimum_are_none() -> None:
    alone, spare = pool(0, 0, 0, minimum=2), pool(0, 0, 0, 1, minimum=2)
    assert [serving(stand(alone, h)) for h in ("uuu", "duu", "ddu", "ddd")] == ["012", "12", "", ""]
    assert [serving(stand(spare, h)) for h in ("uuuu", "dduu", "dddu", "ddud")] == [
        "012", "3", "3", ""
    ]  # fmt: skip
    found = stand(alone, "ddu")
    assert found.of["web", "b2"].stands_by
    assert "fewer than the minimum of 2" in found.of["web", "b2"].reason
    assert found.short == {"web"}
    assert not stand(spare, "dduu").short
    # A minimum of one is what there always was: when none is up, all of them serve.
    assert serving(stand(pool(0, 0, 0), "ddd")) == "012"
    assert serving(stand(pool(0, 0, 0, panic=None), "ddd")) == ""


def test_panic_is_about_the_lowest_level() -> None:
    service = pool(0, 0, 0, 0, 1, 1, panic=50)
    assert serving(stand(service, "dduuuu")) == "0123", "as without backups"
    assert stand(service, "dduuuu").panicking == {"web"}
    assert serving(stand(service, "dddddu")) == "5", "a backup that can serve goes first"
    assert serving(stand(service, "dddddd")) == "0123"
    drained = dict.fromkeys(range(4), Override(drain=True))
    assert serving(stand(service, "uuuudd", drained)) == "45", "nobody else is wanted"


def test_what_the_operator_says_of_primaries() -> None:
    service = pool(0, 1)
    for said in (Override(drain=True), Override(disable=True), Override(weight=0)):
        found = stand(service, "uu", {0: said})
        assert serving(found) == "1"
        assert found.backups == {"web": 1}
    assert stand(service, "uu", {0: Override(drain=True)}).of["web", "b0"].present
    assert serving(stand(service, "uu", {1: Override(weight=7)})) == "0"
    assert stand(service, "du", {1: Override(weight=7)}).of["web", "b1"].weight == 7
    drained = stand(service, "uu", {1: Override(drain=True)}).of["web", "b1"]
    assert (drained.state, drained.stands_by) == (State.DRAINING, True), "others serve"
    drained = stand(service, "du", {1: Override(drain=True)}).of["web", "b1"]
    assert (drained.state, drained.stands_by) == (State.DRAINING, False)
    # Nothing is lost that backups take over.
    config = make_config(service)
    before, after = stand(service, "uu").of, stand(service, "uu", {0: Override(drain=True)}).of
    assert describe_override_losses(config, before, after) == ()


def test_served_is_what_somebody_serves() -> None:
    for service, health, wanted in (
        (pool(0, 1), "uu", True),
        (pool(0, 1), "du", True),
        (pool(0, 1), "dd", False),
        (pool(0, 0, minimum=2), "uu", True),
        (pool(0, 0, minimum=2), "ud", False),
        (pool(0, 0, 1, minimum=2), "udu", True),
    ):
        assert served(make_config(service), stand(service, health).of) == {"web": wanted}, health
    two = replace(pool(0, 1), policy=HealthPolicy(announce_while=2))
    assert served(make_config(two), stand(two, "uu").of) == {"web": True}
    assert served(make_config(two), stand(two, "du").of) == {"web": False}


def test_events_tell_it_once() -> None:
    service = pool(0, 0, 1, 2, minimum=2)
    config = make_config(service)

    def kinds(before: str, after: str) -> list[EventKind]:
        have, want = (stand(service, health, config=config) for health in (before, after))
        return [e[0] for e in state_events(have, want) if e[1] == "web"]

    started, ended = EventKind.BACKUPS_STARTED, EventKind.BACKUPS_ENDED
    assert kinds("uuuu", "uduu") == [started]
    assert kinds("uduu", "dduu") == []
    assert kinds("uduu", "uddu") == [started]
    assert kinds("uddu", "uddd") == [ended, EventKind.MINIMUM_MISSED]
    assert kinds("uddd", "uddu") == [started, EventKind.MINIMUM_REACHED]
    assert kinds("uddu", "uudu") == [ended]

    alone = pool(0, 1)
    have, want = stand(alone, "du"), stand(alone, "dd")
    told = {e[0]: e[2] for e in state_events(have, want) if e[1] == "web"}
    assert told.keys() == {EventKind.PANIC_STARTED, ended}
    assert told[ended] == "no backup can serve either"


def test_flows_of_what_is_down_stay_where_they_are_kept() -> None:
    kept, reset = pool(0, 0, on_down=OnDown.KEEP), pool(0, 0)
    for service, present in ((kept, True), (reset, False)):
        found = stand(service, "du").of["web", "b0"]
        assert (found.state, found.weight, found.present) == (State.DOWN, 0, present)
    assert not stand(kept, "uu", {0: Override(disable=True)}).of["web", "b0"].present
    waiting: Waiting = frozenset({("web", "b0")})
    config = make_config(kept)
    new = plan_backend_statuses(config, {}, {}, NOW, waiting=waiting).of["web", "b0"]
    assert (new.state, new.present) == (State.DOWN, False)


def test_what_was_down_is_known_again_though_its_flows_are_kept() -> None:
    config = make_config(pool(0, 0, 0, 1, 1, on_down=OnDown.KEEP))
    names = [("web", f"b{n}") for n in range(5)]
    spare = {names[3], names[4]}
    assert kept_while_down(config, {names[0], *spare}, {}) == {names[0]}
    assert kept_while_down(config, {names[0], *spare}, {names[0]: Override(drain=True)}) == set()
    assert kept_while_down(config, {names[0], *spare}, {names[0]: Override(weight=0)}) == set()
    assert kept_while_down(config, {*names[:4]}, {}) == {*names[:4]}
    assert kept_while_down(make_config(pool(0, 0)), {names[0]}, {}) == set()


LEVELS = st.lists(st.sampled_from([0, 0, 0, 1, 2, 7]), min_size=1, max_size=6)
SAID = st.sampled_from(
    [None, None, None, Override(drain=True), Override(disable=True), Override(weight=0)]
)


@given(
    data=st.data(),
    levels=LEVELS,
    minimum=st.integers(1, 4),
    panic=st.sampled_from([None, 0, 34, 100]),
)
def test_against_the_contract(
    data: st.DataObject, levels: list[int], minimum: int, panic: int | None
) -> None:
    service = pool(*levels, minimum=minimum, panic=panic)
    config = make_config(service)
    before: BackendStatuses | None = None
    for _ in range(2):
        health = "".join(data.draw(st.sampled_from("uud?")) for _ in levels)
        said = {n: o for n in range(len(levels)) if (o := data.draw(SAID)) is not None}
        found = stand(service, health, said, before, config)
        assert found == stand(service, health, said), "the same as planned at once"
        _check(service, health, said, found)
        before = found


def _check(
    service: VirtualService, health: str, said: dict[int, Override], found: BackendStatuses
) -> None:
    levels = [backend.backup for backend in service.backends]
    wanted = [n for n in range(len(levels)) if n not in said]
    can = [n for n in wanted if health[n] != "d"]
    by_level = {level: [n for n in can if levels[n] == level] for level in sorted(set(levels))}
    # Level 0 counts when enough of it can serve, a backup's level when one can.
    able = {
        level: them
        for level, them in by_level.items()
        if len(them) >= (1 if level else service.minimum)
    }
    serve = able[min(able)] if able else []
    lowest = [n for n in wanted if levels[n] == min((levels[w] for w in wanted), default=0)]
    broken = [n for n in lowest if health[n] == "d"]
    if broken and service.policy.panic is not None and (serve or service.minimum == 1):
        few = 100 * (len(lowest) - len(broken)) <= service.policy.panic * len(lowest)
        if few and not set(serve) - set(lowest):
            serve = lowest
            assert found.panicking == {"web"}
    assert serving(found) == "".join(map(str, sorted(serve)))
    names: list[BackendName] = [("web", f"b{n}") for n in range(len(levels))]
    idle = [n for n, name in enumerate(names) if found.of[name].stands_by]
    assert [n for n in idle if found.of[names[n]].state is not State.DRAINING] == [
        n for n in can if n not in serve
    ]
    by_backups = bool(serve) and min(levels[n] for n in serve) > min(levels)
    assert serves_by_backups(service, found.of) is by_backups
    assert bool(found.backups) is by_backups
