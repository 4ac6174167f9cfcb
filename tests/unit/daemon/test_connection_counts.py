"""What the daemon makes of its counts of connections, and that a cycle does not disturb them."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from support.builders import ids_of, make_backend, make_config, make_service
from support.configurations import render_config
from support.daemon import FakeDaemon
from tula.config.load import parse_config
from tula.daemon.connection_counts import ConnectionCounter, name_connections
from tula.daemon.snapshot import Connections
from tula.dataplane.nft.ids import backend_id
from tula.engine.control import Order
from tula.model.config import Config, Scheduler
from tula.model.event import EventKind
from tula.model.health import Override
from tula.model.stats import BackendKey, Counted, is_estimate

CONFIG = make_config(
    make_service(backends=[make_backend(0), make_backend(1)], scheduler=Scheduler.LEAST_CONNECTIONS)
)


@pytest.fixture
def daemon(tmp_path: Path) -> FakeDaemon:
    made = FakeDaemon(tmp_path, CONFIG)
    made.accept(CONFIG)
    return made


def add_flows(daemon: FakeDaemon, count: int) -> None:
    """So many connections of the first backend."""
    ids = ids_of(daemon.store)
    mark = backend_id(ids.services["web"], ids.backends[CONFIG.services[0].backends[0].key])
    for number in range(count):
        daemon.machine.nftables.flows["tcp4_262144", number.to_bytes(16, "big")] = mark


def kinds(daemon: FakeDaemon, counts: Connections | None) -> str | None:
    """The kinds of maps that acting on a count changed; None: there was nothing to do."""
    result = daemon.writer.count(counts, {})
    if result is None:
        return None
    assert not result.error
    path: Any = result.change.path
    return ", ".join({str(step.name.kind) for step in path.transaction} if path else set())


def test_shares_follow_counts_and_fall_back_to_weights(daemon: FakeDaemon) -> None:
    assert kinds(daemon, daemon.count()) == "", "as the weights are"
    assert daemon.writer.snapshot.shares == {"web": {"b0": 100, "b1": 100}}
    add_flows(daemon, 50)
    assert kinds(daemon, daemon.count()) == "wrr"
    snapshot = daemon.writer.snapshot
    assert snapshot.connections == {("web", "b0"): 50}
    share = snapshot.shares["web"]
    assert share["b0"] < share["b1"] == 100
    assert not daemon.writer.cycle({}, compare=True).change, "a full look agrees"
    other: Config = make_config(replace(CONFIG.services[0], vips=(ip_address("10.0.0.101"),)))
    configuration = parse_config(render_config(other))
    assert daemon.writer.apply(configuration, {}, Order())[0], "another VIP"
    assert daemon.writer.snapshot.shares == snapshot.shares
    assert not daemon.writer.cycle({}).change, "the shares stayed"
    assert kinds(daemon, None) == "wrr"
    assert daemon.writer.snapshot.shares == {}
    assert "least-connections goes by weight" in daemon.writer.snapshot.problems[0]
    daemon.writer.count(daemon.count(), {})
    assert not daemon.writer.snapshot.problems


def test_a_count_during_a_cycle_is_none_the_worse(daemon: FakeDaemon) -> None:
    """While the kernel is being changed, what it was brought to is not known; ids are."""
    add_flows(daemon, 50)
    daemon.writer.count(daemon.count(), {})
    shares = daemon.writer.snapshot.shares
    inside, go_on = threading.Event(), threading.Event()
    observe = daemon.machine.nftables.observe

    def slowly() -> object:
        inside.set()
        assert go_on.wait(60)
        return observe()

    daemon.machine.nftables.observe = slowly  # type: ignore[method-assign,assignment]
    cycle = threading.Thread(target=lambda: daemon.writer.cycle({}, compare=True))
    cycle.start()
    try:
        assert inside.wait(60)
        assert daemon.machine.balancer.applied is None, "a cycle is under way"
        counts = daemon.count()
        assert counts == {("web", "b0"): 50}
        assert daemon.writer.snapshot.problems == ()
        assert daemon.writer.snapshot.applied is not None, "what was published stays"
    finally:
        go_on.set()
        cycle.join()
    daemon.writer.count(counts, {})
    assert daemon.writer.snapshot.problems == ()
    assert daemon.writer.snapshot.shares["web"]["b0"] <= shares["web"]["b0"]


def test_a_drain_is_told_to_have_ended_once(daemon: FakeDaemon) -> None:
    name = ("web", "b0")
    daemon.writer.override(name, lambda _: Override(drain=True), {})
    for counts in ({name: 2}, {}, {}):
        daemon.writer.count(counts, {})
    ended = [event for event in daemon.events.events if event.kind is EventKind.DRAIN_ENDED]
    assert [event.subject for event in ended] == ["web/b0"]


def test_nothing_is_counted_while_nobody_wants_it(tmp_path: Path) -> None:
    config = make_config(make_service(backends=[make_backend(0)]))
    daemon = FakeDaemon(tmp_path, config)
    daemon.accept(config)
    reported: list[Connections | None] = []

    async def count(_: float, __: frozenset[BackendKey]) -> dict[BackendKey, int]:
        return {}

    async def report(counts: Connections | None) -> None:
        reported.append(counts)
        daemon.writer.count(counts, {})

    counter = ConnectionCounter(lambda: daemon.writer.snapshot, count, report)
    asyncio.run(counter.step())
    assert reported == []
    daemon.writer.override(("web", "b0"), lambda _: Override(drain=True), {})
    asyncio.run(counter.step())
    assert reported == [{}]
    daemon.writer.override(("web", "b0"), lambda _: Override(), {})
    asyncio.run(counter.step())
    asyncio.run(counter.step())
    assert reported == [{}, None], "told once that it is not known any longer"


def test_what_is_not_configured_is_left_out(daemon: FakeDaemon) -> None:
    assert name_connections(daemon.writer.snapshot, {("web", "10.9.9.9"): 3}) == {}


def test_an_estimate_ends_no_drain_before_it_is_certain(daemon: FakeDaemon) -> None:
    """What is not in the sample may still be in the table: somebody has to look there, once."""
    name, key = ("web", "b0"), ("web", CONFIG.services[0].backends[0].key)
    daemon.writer.override(name, lambda _: Override(drain=True), {})
    asked: list[frozenset[BackendKey]] = []
    empty: set[BackendKey] = set()

    async def count(_: float, ask: frozenset[BackendKey]) -> Counted:
        asked.append(ask)
        return Counted({("web", CONFIG.services[0].backends[1].key): 900_000}, True, empty & ask)

    async def report(counts: Connections | None) -> None:
        daemon.writer.count(counts, {})

    def ended() -> bool:
        return any(event.kind is EventKind.DRAIN_ENDED for event in daemon.events.events)

    counter = ConnectionCounter(lambda: daemon.writer.snapshot, count, report)
    asyncio.run(counter.step())
    held = daemon.writer.snapshot.connections
    assert held == {("web", "b1"): 900_000}
    assert is_estimate(held, name)
    assert not ended()
    counter._certain_from = 0.0
    empty.add(key)
    asyncio.run(counter.step())
    held = daemon.writer.snapshot.connections
    assert not is_estimate(held, name)
    assert is_estimate(held, ("web", "b1"))
    assert ended()
    counter._certain_from = 0.0
    asyncio.run(counter.step())
    assert [each for each in asked if each] == [{key}, {key}], "it stays empty: not asked again"
    assert len(asked) == 5
    assert not is_estimate(daemon.writer.snapshot.connections, name)
    assert not daemon.writer.snapshot.problems, "least-connections goes by the estimate"
