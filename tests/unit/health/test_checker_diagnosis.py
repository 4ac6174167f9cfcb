"""Why a backend is down: the other ways are asked when it goes down, once."""

from __future__ import annotations

import asyncio
from functools import wraps
from typing import Any

from support.probe_fakes import PASSED, REFUSED, SILENT, Network, Running, by_vip, direct
from support.virtual_time import run_virtually
from tula.health.check import Outcome
from tula.model.monitor import HealthMonitor, IcmpProbe, ScriptProbe, TcpProbe


def virtual(test: Any) -> Any:
    @wraps(test)
    def run() -> None:
        run_virtually(test())

    return run


VIP, OWN = "10.0.0.100", "10.0.0.1"
WHERE = ("web", "one")


@virtual
async def test_it_serves_but_does_not_accept_the_vip() -> None:
    network = Network({("tcp", VIP): SILENT, ("icmp", VIP): SILENT})
    async with Running(network) as running:
        running.check(by_vip())
        await asyncio.sleep(4)
        assert network.times(OWN) == [], "not before it decides"
        await asyncio.sleep(2)
        finding = running.checker.findings()[WHERE]
        assert finding.up is False
        assert finding.evidence.startswith(
            "tcp: no answer within 1 s; the backend serves, but does not accept the VIP; "
            "forwarded packets arrive"
        )
        assert running.reasons == [(WHERE, finding.evidence)]
        kinds = [(asked[1].type, str(asked[2].address), asked[2].port) for asked in network.asked]
        own = ("icmp", OWN, 0)
        assert kinds[3:7] == [("tcp", OWN, 80), own, ("icmp", VIP, 0), own]
        assert [asked[2].priority for asked in network.asked[3:7]] == [0, 7, 7, 0]


@virtual
async def test_it_is_asked_again_now_and_then_and_when_the_failure_changes() -> None:
    network = Network({("tcp", VIP): SILENT, ("tcp", OWN): SILENT})
    network.answers["icmp", VIP] = network.answers["icmp", OWN] = SILENT
    async with Running(network) as running:
        running.check(by_vip())
        await asyncio.sleep(25)
        assert len(running.reasons) == 1
        assert "the host does not answer at all" in running.reasons[0][1]
        network.answers["tcp", VIP] = REFUSED
        del network.answers["tcp", OWN]
        await asyncio.sleep(5)
        assert "nothing listens on the VIP's port 80, or a" in running.reasons[1][1]
        asked = len(network.times(OWN))
        await asyncio.sleep(25)
        assert len(network.times(OWN)) == asked
        await asyncio.sleep(5)
        assert len(network.times(OWN)) == asked + 1
        assert len(running.reasons) == 2, "nothing new"


@virtual
async def test_what_could_not_be_asked_is_asked_again_soon() -> None:
    network = Network({("tcp", VIP): SILENT, ("icmp", VIP): SILENT, ("icmp", OWN): SILENT})
    network.answers["tcp", OWN] = Outcome(None, "tcp: no socket: Too many open files")
    async with Running(network) as running:
        running.check(by_vip())
        await asyncio.sleep(8)
        assert running.checker.findings()[WHERE].evidence == SILENT.evidence
        network.answers["tcp", OWN] = SILENT
        await asyncio.sleep(6)
        assert "the host does not answer at all" in running.checker.findings()[WHERE].evidence


@virtual
async def test_up_again_forgets_the_diagnosis() -> None:
    network = Network({("tcp", VIP): SILENT, ("icmp", VIP): SILENT})
    async with Running(network) as running:
        running.check(by_vip())
        await asyncio.sleep(8)
        network.answers["tcp", VIP] = PASSED
        await asyncio.sleep(5)
        assert running.checker.findings()[WHERE].evidence == "tcp: connected"
        network.answers["tcp", VIP] = SILENT
        network.answers["tcp", OWN] = network.answers["icmp", OWN] = SILENT
        await asyncio.sleep(7)
        assert "the host does not answer at all" in running.checker.findings()[WHERE].evidence


@virtual
async def test_an_echo_monitor_asks_two_echoes() -> None:
    network = Network({("icmp", VIP): SILENT})
    async with Running(network) as running:
        running.check(by_vip(settings=HealthMonitor(IcmpProbe(), fall=1)))
        await asyncio.sleep(1.5)
        assert len(network.asked) == 3, "to its own address, and on the path to the VIP"
        assert "does not accept the VIP" in running.checker.findings()[WHERE].evidence


@virtual
async def test_a_direct_check_and_a_script_have_no_other_way() -> None:
    network = Network({("tcp", OWN): SILENT, ("script", VIP): SILENT})
    async with Running(network) as running:
        script = by_vip(settings=HealthMonitor(ScriptProbe(command=("/bin/check",))))
        running.check(direct(settings=HealthMonitor(TcpProbe(), via="direct"), service="d"), script)
        await asyncio.sleep(10)
        assert running.up("d") is running.up() is False
        assert {asked[1].type for asked in network.asked} == {"tcp", "script"}
        assert running.reasons == []
