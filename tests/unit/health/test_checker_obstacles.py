"""While this machine cannot ask, and shortly after, silence says nothing of a backend."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from support.probe_fakes import REFUSED, SILENT, TCP, Network, Running, direct
from support.virtual_time import run_virtually
from tula.health.check import Check, FailureKind, Outcome

ONE, TWO = direct(), direct("10.0.0.2", backend="two")
NO_ROUTE = "no route to 10.0.0.1"
OTHER = Outcome(False, "tcp: no route to host", failure=FailureKind.UNREACHABLE)


def without_route(*checks: Check) -> list[Check]:
    return [replace(check, obstacle=NO_ROUTE) for check in checks]


def silent(network: Network, *addresses: str, outcome: Outcome = SILENT) -> None:
    for address in addresses:
        network.answers["tcp", address] = outcome


@asynccontextmanager
async def found_up(network: Network, *checks: Check) -> AsyncIterator[Running]:
    async with Running(network) as running:
        running.check(*checks)
        await asyncio.sleep(6)
        assert all(running.up(*check.backend) for check in checks)
        yield running


def test_the_verdict_stays_and_nothing_is_sent() -> None:
    async def test() -> None:
        network = Network()
        async with found_up(network, ONE) as running:
            silent(network, "10.0.0.1")
            await asyncio.sleep(4)  # two of three failures
            running.check(*without_route(ONE))
            asked = len(network.asked)
            await asyncio.sleep(60)
            assert len(network.asked) == asked
            finding = running.checker.findings()["web", "one"]
            assert (finding.up, finding.warning) == (True, f"not checked: {NO_ROUTE}")
            network.answers.clear()
            running.check(ONE)
            await asyncio.sleep(4)
            silent(network, "10.0.0.1")
            await asyncio.sleep(4)  # those from before do not count to these
            assert running.up() is True
            await asyncio.sleep(3)
            assert running.up() is False

    run_virtually(test())


def test_what_was_on_its_way_does_not_count() -> None:
    async def test() -> None:
        network, settings = Network(takes=0.9), replace(TCP, fall=1)
        check = direct(settings=settings)
        async with found_up(network, check) as running:
            silent(network, "10.0.0.1")
            while len(network.asked) < 4:
                await asyncio.sleep(0.1)
            running.check(*without_route(check))
            running.check(check)  # and it is over before the answer is
            await asyncio.sleep(1)
            assert running.up() is True

    run_virtually(test())


def test_a_switch_that_passes_nothing_yet_takes_nobody_down() -> None:
    """Spanning tree learns for 30 s. Of two that are silent, one is dead in truth."""

    async def test() -> None:
        network = Network()
        async with found_up(network, ONE, TWO) as running:
            running.check(*without_route(ONE, TWO))
            silent(network, "10.0.0.1", "10.0.0.2")
            await asyncio.sleep(10)
            running.check(ONE, TWO)
            await asyncio.sleep(30)
            assert (running.up(), running.up(backend="two")) == (True, True)
            warning = running.checker.findings()["web", "one"].warning
            assert "has just come back, so this does not count" in warning
            del network.answers["tcp", "10.0.0.1"]  # the port forwards
            await asyncio.sleep(10)
            assert (running.up(), running.up(backend="two")) == (True, False)

    run_virtually(test())


def test_other_services_say_nothing_of_this_way() -> None:
    """They may have another interface, where everybody answers."""
    other = direct("10.1.0.1", service="other")

    async def test() -> None:
        network = Network()
        async with found_up(network, ONE, other) as running:
            running.check(*without_route(ONE), other)
            silent(network, "10.0.0.1")
            running.check(ONE, other)
            await asyncio.sleep(34)
            assert (running.up(), running.up("other")) == (True, True)

    run_virtually(test())


def test_a_way_that_is_cut_elsewhere_excuses_nobody() -> None:
    """A backend without a route for good, and another whose check is another one now."""
    elsewhere = replace(TWO, obstacle="no route to 10.0.0.2")

    async def test() -> None:
        network = Network()
        async with found_up(network, ONE) as running:
            running.check(ONE, elsewhere)
            silent(network, "10.0.0.1")
            running.check(direct(settings=replace(TCP, interval=1.5)), elsewhere)
            await asyncio.sleep(7)
            assert running.up() is False

    run_virtually(test())


def test_what_stays_silent_is_down_after_a_while() -> None:
    async def test() -> None:
        network = Network()
        async with found_up(network, ONE) as running:
            running.check(*without_route(ONE))
            silent(network, "10.0.0.1", outcome=OTHER)
            running.check(ONE)
            await asyncio.sleep(34)
            assert running.up() is True
            await asyncio.sleep(8)
            assert running.up() is False

    run_virtually(test())


def test_an_answer_counts_at_once() -> None:
    async def test() -> None:
        network = Network()
        async with found_up(network, ONE) as running:
            running.check(*without_route(ONE))
            silent(network, "10.0.0.1", outcome=REFUSED)
            running.check(ONE)
            await asyncio.sleep(7)
            assert running.up() is False

    run_virtually(test())


def test_a_probe_that_had_no_address_to_ask_from_meanwhile() -> None:
    """IPv6 addresses go with their link: the probes are gone, and come as new ones."""
    six = direct("2001:db8::1")

    async def test() -> None:
        network = Network()
        async with found_up(network, ONE, six) as running:
            running.check(*without_route(ONE))
            silent(network, "2001:db8::1")
            running.check(ONE)
            await asyncio.sleep(4)
            running.check(ONE, six)
            await asyncio.sleep(2.5)
            assert running.up() is True
            await asyncio.sleep(10)
            assert running.up() is False

    run_virtually(test())
