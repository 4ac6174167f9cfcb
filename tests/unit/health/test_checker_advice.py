"""What checks say beside up and down, in virtual time and on a fake network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import replace
from functools import wraps
from typing import Any

from support.probe_fakes import PASSED, REFUSED, Network, Running, direct
from support.virtual_time import run_virtually
from tula.health.check import Outcome
from tula.model.advice import Admin, Advice, GivenWeight, Words
from tula.model.health import Health
from tula.model.monitor import AgentProbe, HealthMonitor, HttpProbe

HTTP = HealthMonitor(HttpProbe(drain_on=(404,), weight_from="body"), rise=2, fall=2, via="direct")
AGENT = HealthMonitor(AgentProbe(port=5555), via="direct")
GONE = Outcome(True, "http: status 404", words=Words(admin=Admin.DRAIN, cause="answered 404"))
MUTE = Outcome(None, "agent: connection refused")


def virtual(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        run_virtually(test(*args, **kwargs))

    return run


def weighs(weight: int) -> Outcome:
    return Outcome(True, f"http: weight {weight}", words=Words(GivenWeight(weight)))


def says(evidence: str = "agent: said", **words: Any) -> Outcome:
    return Outcome(True, evidence, words=Words(**words))


def found(running: Running) -> Health:
    return running.checker.findings()["web", "one"]


def http(running: Running, outcome: Outcome) -> None:
    running.network.answers["http", "10.0.0.1"] = outcome


def agent(running: Running, outcome: Outcome) -> None:
    running.network.answers["agent", "10.0.0.1"] = outcome


@virtual
async def test_a_weight_holds_while_the_check_fails_and_is_forgotten_with_it() -> None:
    async with Running(Network()) as running:
        http(running, weighs(30))
        running.check(direct(settings=HTTP))
        await asyncio.sleep(1.5)
        (said,) = found(running).advice
        assert (found(running).up, said.weight) == (None, GivenWeight(30)), "from the first answer"
        await asyncio.sleep(2)
        http(running, REFUSED)
        await asyncio.sleep(2)
        assert found(running).advice == (said,)
        await asyncio.sleep(2)
        assert (found(running).up, found(running).advice) == (False, ())
        http(running, weighs(40))
        await asyncio.sleep(4)
        assert [each.weight for each in found(running).advice] == [GivenWeight(40)]


@virtual
async def test_404_drains_what_is_up_and_brings_nothing_up() -> None:
    async with Running(Network()) as running:
        http(running, PASSED)
        running.check(direct(settings=HTTP))
        await asyncio.sleep(3.5)
        http(running, GONE)
        await asyncio.sleep(20)
        assert found(running).up is True
        (said,) = found(running).advice
        assert (said.admin, said.who, said.cause) == (Admin.DRAIN, "its check", "answered 404")
        http(running, replace(PASSED, words=Words()))
        await asyncio.sleep(2)
        assert found(running).advice == ()

        http(running, REFUSED)
        await asyncio.sleep(4)
        http(running, GONE)
        await asyncio.sleep(20)
        assert (found(running).up, found(running).advice) == (False, ())
        assert found(running).evidence == (
            "http: status 404: drains a backend that is up, and brings none up"
        )
        http(running, replace(PASSED, words=Words()))
        await asyncio.sleep(4)
        assert found(running).up is True


@virtual
async def test_what_the_daemon_before_found_down_is_not_brought_up_by_404() -> None:
    async with Running(Network()) as running:
        http(running, GONE)
        running.check(
            direct(settings=HTTP), adopted={("web", "one"): Health(False, 1.0, "was down")}
        )
        await asyncio.sleep(20)
        assert found(running).up is False


@virtual
async def test_an_agent_says_down_at_once_and_alone_brings_nothing_up() -> None:
    async with Running(Network()) as running:
        agent(running, says(up=True))
        running.network.answers["tcp", "10.0.0.1"] = REFUSED
        running.check(direct(), direct(settings=AGENT, monitor=1))
        await asyncio.sleep(10)
        assert found(running).up is False, "its other check fails"
        running.network.answers["tcp", "10.0.0.1"] = PASSED
        await asyncio.sleep(4)
        assert found(running).up is True
        agent(running, says("agent: down #disk full", up=False))
        await asyncio.sleep(2)
        assert (found(running).up, found(running).evidence) == (False, "agent: down #disk full")
        agent(running, MUTE)
        await asyncio.sleep(20)
        assert (found(running).up, found(running).evidence) == (False, "agent: down #disk full")
        assert found(running).warning == "not checked: agent: connection refused"
        agent(running, says(weight=GivenWeight(50, percent=True)))
        await asyncio.sleep(2)
        assert found(running).up is False, "only up ends down"
        agent(running, says(up=True))
        await asyncio.sleep(2)
        assert found(running).up is True
        assert [each.weight for each in found(running).advice] == [GivenWeight(50, percent=True)]


@virtual
async def test_a_silent_agent_changes_nothing() -> None:
    async with Running(Network()) as running:
        agent(running, MUTE)
        running.check(direct(), direct(settings=AGENT, monitor=1))
        await asyncio.sleep(20)
        assert (found(running).up, found(running).advice) == (True, ())
        agent(running, says(admin=Admin.DRAIN, cause="says drain"))
        await asyncio.sleep(2)
        agent(running, MUTE)
        await asyncio.sleep(60)
        assert [each.admin for each in found(running).advice] == [Admin.DRAIN]


@virtual
async def test_without_other_checks_an_agent_is_believed() -> None:
    async with Running(Network()) as running:
        agent(running, says(weight=GivenWeight(10)))
        running.check(direct(settings=AGENT))
        await asyncio.sleep(10)
        assert found(running).up is None
        agent(running, says(up=False))
        await asyncio.sleep(2)
        assert found(running).up is False
        agent(running, says(admin=Admin.READY))
        await asyncio.sleep(2)
        assert found(running).up is False
        agent(running, says(up=True))
        await asyncio.sleep(2)
        assert found(running).up is True


@virtual
async def test_answers_that_differ_each_time_are_told_of_once_a_second() -> None:
    quick = replace(HTTP, interval=0.05, timeout=0.04)
    async with Running(Network(takes=0.001)) as running:
        running.check(*(direct(settings=quick, backend=name) for name in ("one", "two")))
        for number in range(400):
            http(running, weighs(number) if number % 3 else GONE)
            await asyncio.sleep(0.05)
        assert 20 <= len(running.changes) <= 24, "20 seconds, and up once"
        running.changes.clear()
        await asyncio.sleep(30)
        assert len(running.changes) <= 1, "an answer that stays the same is no news"


@virtual
async def test_what_was_said_outlives_the_daemon_and_other_settings() -> None:
    said = Advice(1, "its agent", admin=Admin.DRAIN, cause="says drain")
    async with Running(Network()) as running:
        agent(running, MUTE)
        checks = (direct(), direct(settings=AGENT, monitor=1))
        running.check(*checks, adopted={("web", "one"): Health(None, 1.0, advice=(said,))})
        assert found(running).advice == (said,)
        await asyncio.sleep(20)
        assert (found(running).up, found(running).advice) == (True, (said,))
        slower = replace(AGENT, interval=5.0)
        running.check(direct(), direct(settings=slower, monitor=1))
        assert found(running).advice == (said,)
        agent(running, says(weight=GivenWeight(7)))
        await asyncio.sleep(6)
        (now,) = found(running).advice
        assert (now.admin, now.weight) == (Admin.DRAIN, GivenWeight(7))
        running.check(direct())
        assert found(running).advice == (), "the check is gone, and what it said"
        running.check(*checks)
        assert found(running).advice == ()
