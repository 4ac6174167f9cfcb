"""How late probes start, over a whole life and lately."""

from __future__ import annotations

import asyncio
import socket
import time
from ipaddress import ip_address

from support.virtual_time import run_virtually
from tula.health.probes import send_probe
from tula.health.timing import Lateness, LateStarts, LoopLag
from tula.kernel.probe_sockets import KernelProbeSockets
from tula.model.health import ProbeTarget
from tula.model.monitor import HealthMonitor, TcpProbe


def test_totals_never_fall_and_the_worst_is_of_the_last_minutes() -> None:
    late = LateStarts()
    late.record(0.5, 1000.0)
    late.record(0.25, 1030.0)
    assert late.read(1030.0) == Lateness(2, 0.75, 0.5)
    late.record(0.0, 1090.0)
    assert late.read(1090.0) == Lateness(3, 0.75, 0.25)
    assert late.read(1400.0) == Lateness(3, 0.75, 0.0)


def test_a_loop_that_is_never_late_loses_nothing() -> None:
    async def main() -> None:
        lag = LoopLag()
        lag.start(asyncio.get_running_loop())
        await asyncio.sleep(10)
        assert lag.lost() < 1e-6
        lag.stop()

    run_virtually(main())


def test_what_the_loop_lost_a_probe_gets_back() -> None:
    async def main() -> tuple[bool | None, float]:
        loop = asyncio.get_running_loop()
        lag = LoopLag()
        lag.start(loop)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            target = ProbeTarget(ip_address("127.0.0.1"), listening.getsockname()[1])
            settings = HealthMonitor(TcpProbe(expect="here"), timeout=0.2)
            sending = send_probe(settings, target, KernelProbeSockets(), {}, lag.lost)
            asked = asyncio.create_task(sending)
            await asyncio.sleep(0.01)
            opened, _ = listening.accept()
            with opened:
                time.sleep(0.25)
                await asyncio.sleep(0.02)
                opened.sendall(b"here")
                outcome = await asked
        return outcome.passed, outcome.seconds

    passed, seconds = asyncio.run(main())
    assert passed
    assert seconds > 0.2
