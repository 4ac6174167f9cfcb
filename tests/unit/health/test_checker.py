"""The checker's decisions, in virtual time and on a fake network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import wraps
from ipaddress import ip_address
from itertools import pairwise
from typing import Any

import pytest

from support.probe_fakes import REFUSED, SILENT, TCP, Network, Running, by_vip, direct
from support.probe_servers import says, tcp_server
from support.virtual_time import run_virtually
from tula.health.check import Check, Outcome
from tula.health.checker import Checker
from tula.kernel.probe_sockets import KernelProbeSockets
from tula.model.health import Health, ProbeTarget
from tula.model.monitor import HealthMonitor, HealthPolicy, HttpProbe, ScriptProbe, TcpProbe


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtually(test(*args, **kwargs))

    return run


@virtual
async def test_up_after_rise_and_down_after_fall() -> None:
    network = Network()
    async with Running(network) as running:
        running.check(direct())
        assert running.up() is None
        await asyncio.sleep(1.5)  # first at 1 s: the middle of the interval
        assert running.up() is None
        await asyncio.sleep(2)
        assert running.up() is True
        assert len(running.changes) == 1
        network.answers["tcp", "10.0.0.1"] = REFUSED
        await asyncio.sleep(4)
        assert running.up() is True
        await asyncio.sleep(2)
        finding = running.checker.findings()["web", "one"]
        assert (finding.up, finding.evidence) == (False, "tcp: connection refused")
        assert finding.since == pytest.approx(1009.01)
        assert len(running.changes) == 2
        (view,) = running.checker.describe()
        assert (view.failures, view.passes, view.flaps, view.up) == (3, 0, 1, False)


@virtual
async def test_it_asks_faster_while_the_state_is_open() -> None:
    network = Network()
    async with Running(network) as running:
        running.check(direct(settings=replace(TCP, fast_interval=0.5)))
        await asyncio.sleep(20)
        first, second, third, *_ = network.times("10.0.0.1")
        assert first == pytest.approx(1000.25)
        assert second - first == pytest.approx(0.5)
        assert third - second == pytest.approx(2.0)


@virtual
async def test_probes_keep_their_pace_and_are_spread() -> None:
    network = Network(takes=0.7)
    async with Running(network) as running:
        running.check(*(direct(f"10.0.0.{n}", backend=f"b{n}") for n in range(1, 11)))
        await asyncio.sleep(100)
        starts = [network.times(f"10.0.0.{n}") for n in range(1, 11)]
        assert [times[0] for times in starts] == pytest.approx(
            [1000.1 + 0.2 * n for n in range(10)]
        )
        for times in starts:
            assert {round(b - a, 6) for a, b in pairwise(times)} == {2.0}
        late = running.checker.lateness()
        assert late.starts == sum(map(len, starts))
        assert late.worst < 0.001


@virtual
async def test_a_probe_never_overlaps_itself() -> None:
    network = Network(takes=5.0)
    async with Running(network) as running:
        running.check(direct())
        await asyncio.sleep(60)
        assert all(b - a >= 5 for a, b in pairwise(network.times("10.0.0.1")))


@virtual
async def test_the_same_probe_is_sent_once_for_all_who_want_it() -> None:
    network = Network()
    async with Running(network) as running:
        running.check(
            direct(), direct(service="www"), direct(service="x", settings=replace(TCP, rise=1))
        )
        await asyncio.sleep(9.5)
        assert len(network.asked) == 10
        views = running.checker.describe()
        assert [view.backends for view in views] == [
            (("web", "one"), ("www", "one")),
            (("x", "one"),),
        ]
        assert [running.up(name) for name in ("web", "www", "x")] == [True] * 3


@virtual
async def test_a_script_runs_for_each_backend_with_its_environment() -> None:
    script = HealthMonitor(ScriptProbe(command=("/bin/check",)))
    network = Network()
    async with Running(network) as running:
        through = replace(by_vip(), settings=script, backend=("mail", "one"))
        running.check(direct(settings=script), direct(settings=script, service="www"), through)
        await asyncio.sleep(2)
        told = {asked[3]["TULA_SERVICE"]: asked[3] for asked in network.asked}
    assert told.keys() == {"web", "www", "mail"}
    assert told["mail"] == {
        "TULA_SERVICE": "mail",
        "TULA_BACKEND": "one",
        "TULA_ADDRESS": "10.0.0.1",
        "TULA_PORT": "80",
        "TULA_VIP": "10.0.0.100",
    }
    assert told["web"]["TULA_VIP"] == ""


@pytest.mark.parametrize(("require_all", "up"), [(True, False), (False, True)])
@virtual
async def test_several_monitors(require_all: bool, up: bool) -> None:
    network = Network({("tcp", "10.0.0.2"): SILENT})
    async with Running(network) as running:
        checks = [direct(), direct("10.0.0.2", monitor=1)]
        running.check(*checks, policy=HealthPolicy(require_all=require_all))
        await asyncio.sleep(10)
        assert running.up() is up
        evidence = running.checker.findings()["web", "one"].evidence
        assert evidence == ("tcp: connected" if up else "tcp: no answer within 1 s")


@virtual
async def test_of_several_vips_all_have_to_pass() -> None:
    network = Network({("tcp", "10.0.0.101"): SILENT})
    async with Running(network) as running:
        running.check(by_vip(), by_vip("10.0.0.101"), policy=HealthPolicy(require_all=False))
        await asyncio.sleep(10)
        assert running.up() is False


@virtual
async def test_what_was_adopted_holds_until_it_is_decided() -> None:
    network = Network({("tcp", "10.0.0.2"): REFUSED})
    async with Running(network) as running:
        adopted = {
            ("web", "one"): Health(False, 5.0, "was down"),
            ("web", "two"): Health(True, 6.0, "was up"),
            ("web", "three"): Health(True, 7.0, "was up"),
        }
        checks = [direct(), direct("10.0.0.2", backend="two"), direct("10.0.0.3", backend="three")]
        running.check(*checks, adopted=adopted)
        assert running.checker.findings() == adopted
        await asyncio.sleep(2)  # rise is 2: not yet
        assert running.checker.findings()["web", "one"] == adopted["web", "one"]
        await asyncio.sleep(5)
        found = running.checker.findings()
        assert (found["web", "one"].up, found["web", "one"].evidence) == (True, "tcp: connected")
        assert found["web", "one"].since > 1000
        assert found["web", "two"].up is False
        assert (found["web", "three"].up, found["web", "three"].since) == (True, 7.0)
        assert len(running.changes) == 2


@virtual
async def test_checks_that_stay_keep_their_state_and_turn() -> None:
    network = Network({("tcp", "10.0.0.100"): REFUSED, ("tcp", "10.0.0.1"): REFUSED})
    async with Running(network) as running:
        running.check(by_vip(number=7))
        await asyncio.sleep(4.2)  # two failures
        running.check(by_vip(number=9), direct("10.0.0.3", backend="other"))
        await asyncio.sleep(1.5)
        assert running.up() is False
        times = network.times("10.0.0.100")
        assert {round(b - a, 6) for a, b in pairwise(times)} == {2.0}
        ids = [asked[2].priority for asked in network.asked if asked[2].priority]
        assert ids == [7, 7, 9]


@virtual
async def test_other_settings_begin_anew_and_the_backend_stands_as_before() -> None:
    network = Network({("tcp", "10.0.0.1"): REFUSED})
    async with Running(network) as running:
        running.check(direct())
        await asyncio.sleep(8)
        before = running.checker.findings()["web", "one"]
        network.answers.clear()
        running.check(direct(settings=replace(TCP, rise=3)))
        assert running.checker.findings()["web", "one"] == before
        await asyncio.sleep(4)
        assert running.up() is False
        await asyncio.sleep(3)
        assert running.up() is True


@virtual
async def test_another_address_is_another_server() -> None:
    network = Network({("tcp", "10.0.0.1"): REFUSED})
    async with Running(network) as running:
        running.check(direct())
        await asyncio.sleep(8)
        running.check(direct("10.0.0.9"))
        assert running.up() is None


@virtual
async def test_what_is_no_longer_wanted_is_not_asked() -> None:
    network = Network()
    async with Running(network) as running:
        running.check(direct(), direct("10.0.0.2", backend="two"))
        await asyncio.sleep(5)
        running.check(direct("10.0.0.2", backend="two"))
        network.asked.clear()
        await asyncio.sleep(10)
        assert network.times("10.0.0.1") == []
        assert len(network.times("10.0.0.2")) == 5
        assert set(running.checker.findings()) == {("web", "two")}
        running.check()
        await asyncio.sleep(10)
        assert running.checker.describe() == []


@virtual
async def test_what_could_not_be_asked_counts_neither_way() -> None:
    unasked = Outcome(None, "tcp: too many open files")
    network = Network()
    async with Running(network) as running:
        running.check(direct())
        await asyncio.sleep(6)
        network.answers["tcp", "10.0.0.1"] = unasked
        await asyncio.sleep(60)
        finding = running.checker.findings()["web", "one"]
        assert (finding.up, finding.warning) == (True, "not checked: tcp: too many open files")


@virtual
async def test_an_error_in_a_probe_does_not_count_against_the_backend() -> None:
    class Broken(Network):
        async def send(self, *_: object) -> Outcome:
            raise ValueError("a mistake")

    async with Running(Broken()) as running:
        running.check(direct())
        await asyncio.sleep(60)
        finding = running.checker.findings()["web", "one"]
        assert finding.up is None
        assert "the check failed: ValueError('a mistake')" in finding.warning


@virtual
async def test_changes_at_one_time_are_reported_once() -> None:
    network = Network()
    async with Running(network) as running:
        running.check(direct(), *(direct(service=f"s{n}") for n in range(20)))
        await asyncio.sleep(10)
        assert len(running.changes) == 1


@virtual
async def test_one_that_is_split_keeps_its_state() -> None:
    network = Network({("tcp", "10.0.0.1"): REFUSED})
    async with Running(network) as running:
        script = HealthMonitor(TcpProbe(), rise=2, fall=3)
        running.check(direct(), direct(service="www"))
        await asyncio.sleep(4)
        running.check(direct(), direct(service="www", settings=script))
        await asyncio.sleep(4)
        assert running.up("web") is False


def test_with_sockets_of_the_machine() -> None:
    async def main() -> None:
        changed = asyncio.Event()
        checker = Checker(KernelProbeSockets(), changed.set)
        monitor = HealthMonitor(HttpProbe(), interval=0.02, rise=2, fall=2, via="direct")
        async with tcp_server(says(b"HTTP/1.1 200 OK\r\n\r\n")) as port:
            target = ProbeTarget(ip_address("127.0.0.1"), port)
            checker.set_checks([Check(("web", "one"), 0, monitor, target)], {}, {})
            task = asyncio.create_task(checker.run())
            await asyncio.wait_for(changed.wait(), 10)
            assert checker.findings()["web", "one"].up is True
            changed.clear()
        await asyncio.wait_for(changed.wait(), 10)
        finding = checker.findings()["web", "one"]
        assert (finding.up, finding.evidence) == (
            False,
            f"http to 127.0.0.1 port {port}: connection refused",
        )
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(main())
