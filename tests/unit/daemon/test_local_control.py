"""What API and command line get from a daemon in this process."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from support.api_daemon import ControlScene as Scene
from support.daemon import CONFIG
from tula.daemon.checks import ProbeTable
from tula.daemon.local_control import LocalControl
from tula.engine.control import BusyError, NoSuchBackendError
from tula.engine.differences import NO_TABLE
from tula.engine.statistics import ProbeStatistics
from tula.health.check import Check, Outcome
from tula.health.scheduled import ScheduledProbe
from tula.model.config import Protocol
from tula.model.errors import StateError
from tula.model.event import EventKind
from tula.model.flow import Flow
from tula.model.health import ProbeTarget
from tula.model.monitor import HealthMonitor, TcpProbe

B0 = ("web", "b0")
VIP = CONFIG.services[0].vips[0]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(main())


async def backend(control: LocalControl, number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(await control.status())["services"][0]["backends"][number]
    return found


def test_before_there_is_a_configuration(scene: Scene) -> None:
    async def main() -> None:
        flow = Flow(VIP, 1, VIP, 80, Protocol.TCP)
        for asked in (
            scene.control.status(),
            scene.control.plan(None, False),
            scene.control.trace(flow, None),
            scene.control.drain(B0, None),
        ):
            with pytest.raises(BusyError):
                await asked
        assert b"tula_build_info" in await scene.control.metrics()
        await asyncio.to_thread(scene.control.close)

    run(main)


def test_status_says_which_configuration_runs(scene: Scene) -> None:
    async def main() -> None:
        async with scene.running() as control:
            status = json.loads(await control.status())
            assert len(status["configuration"]["digest"]) == 64
            assert status["configuration"]["file_differs"] is False
            assert status["configuration"]["accepted"] == 1000.0
            assert status["kernel"]["in_sync"] is True
            assert status["kernel"]["differences"] == []
            assert status["kernel"]["interfaces"] == {"eth0": "up"}
            assert status["summary"]["fine"] is True
            assert "; kernel in sync; 1 service up; " in status["summary"]["text"]
            assert status["services"][0]["path"] == "nftables"
            assert status["daemon"]["configuration"]["path"].endswith("tula.yaml")

    run(main)


def test_status_compares_when_it_is_asked(scene: Scene) -> None:
    async def main() -> None:
        async with scene.running() as control:
            nftables = scene.daemon.machine.nftables
            nftables.meddle(None)
            status = json.loads(await control.status())
            assert status["kernel"]["in_sync"] is False
            assert status["kernel"]["differences"] == [NO_TABLE]
            assert status["summary"]["fine"] is False

    run(main)


def test_overrides_are_in_the_kernel_and_in_the_status_when_they_return(scene: Scene) -> None:
    async def main() -> None:
        async with scene.running() as control:
            await control.drain(B0, 600.0)
            assert (await backend(control))["state"] == "draining"
            await control.undrain(B0)
            await control.disable(B0)
            assert (await backend(control))["state"] == "disabled"
            await control.enable(B0)
            await control.set_weight(B0, 7)
            assert (await backend(control))["effective_weight"] == 7
            await control.set_weight(B0, None)
            told = [e.message for e in scene.daemon.events.events if e.kind is EventKind.WEIGHT_SET]
            assert told == ["weight: 7", "weight: the configuration's"]
            with pytest.raises(NoSuchBackendError):
                await control.drain(("web", "b9"), None)

    run(main)


def test_an_override_that_the_disk_refuses_is_none(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StateError("No space left on device")

    async def main() -> None:
        async with scene.running() as control:
            monkeypatch.setattr(scene.daemon.store, "save_overrides", full)
            with pytest.raises(StateError):
                await control.disable(B0)
            assert (await backend(control))["state"] == "unknown"

    run(main)


def test_plan_trace_events_and_counts(scene: Scene) -> None:
    async def main() -> None:
        async with scene.running() as control:
            assert not (await control.plan(None, False)).changed
            found = await control.trace(Flow(VIP, 1234, VIP, 80, Protocol.TCP), None)
            assert found.service == "web"
            page = await control.events(None, 10)
            assert (await control.events(page.events[-1].number, 10, page.epoch)).events == ()
            assert (await control.events(10**6, 10, "another")).events == page.events
            assert await control.count_connections(1.0, frozenset()) == {}
            assert await control.count_connections(0.0, frozenset()) is None

    run(main)


def test_probes_of_one_kind_are_numbered_and_only_changes_cost() -> None:
    def probe(settings: HealthMonitor, seconds: float | None) -> ScheduledProbe:
        made = ScheduledProbe(Check(B0, 0, settings, ProbeTarget(VIP)))
        made.outcome = None if seconds is None else Outcome(True, "", seconds)
        return made

    tcp, names = HealthMonitor(TcpProbe()), (B0, ("api", "b0"))
    one, two = probe(tcp, 0.1), probe(tcp, None)
    listed = ((one, names), (two, names[:1]))
    table = ProbeTable()
    found = table.read(listed)
    assert found == {
        B0: (ProbeStatistics("tcp", 0.1), ProbeStatistics("tcp-2")),
        ("api", "b0"): (ProbeStatistics("tcp", 0.1),),
    }
    assert table.read(listed) is found
    two.outcome, two.failed = Outcome(False, "refused", 0.2), 1
    later = table.read(listed)
    assert later[B0] == (ProbeStatistics("tcp", 0.1), ProbeStatistics("tcp-2", 0.2, 1))
    assert later["api", "b0"] is found["api", "b0"]
    assert found[B0][1] == ProbeStatistics("tcp-2"), "what was returned stays"
    assert table.read(((two, names[:1]),)) == {B0: (ProbeStatistics("tcp", 0.2, 1),)}
