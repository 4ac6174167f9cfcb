"""How late probes start, over a whole life and lately."""

from __future__ import annotations

import asyncio
import socket
import time
from ipaddress import ip_address

from support.virtual_time import run_virtually
from tula.health.check import Lateness
from tula.health.lateness import LateStarts, Pulse
from tula.health.probes import ask
from tula.kernel.probe_sockets import KernelProbeSockets
from tula.model.config import HealthMonitor
from tula.model.health import ProbeTarget


def test_totals_never_fall_and_the_worst_is_of_the_last_minutes() -> None:
    late = LateStarts()
    late.note(0.5, 1000.0)
    late.note(0.25, 1030.0)
    assert late.read(1030.0) == Lateness(2, 0.75, 0.5)
    late.note(0.0, 1090.0)
    assert late.read(1090.0) == Lateness(3, 0.75, 0.25)
    assert late.read(1400.0) == Lateness(3, 0.75, 0.0)


def test_a_loop_that_is_never_late_loses_nothing() -> None:
    async def main() -> None:
        pulse = Pulse()
        pulse.start(asyncio.get_running_loop())
        await asyncio.sleep(10)
        assert pulse.lost() < 1e-6
        pulse.stop()

    run_virtually(main())


def test_what_the_loop_lost_a_probe_gets_back() -> None:
    async def main() -> tuple[bool | None, float]:
        loop = asyncio.get_running_loop()
        pulse = Pulse()
        pulse.start(loop)
        with socket.create_server(("127.0.0.1", 0)) as listening:
            target = ProbeTarget(ip_address("127.0.0.1"), listening.getsockname()[1])
            settings = HealthMonitor("tcp", timeout=0.2, extra=(("expect", "here"),))
            asked = asyncio.create_task(ask(settings, target, KernelProbeSockets(), {}, pulse.lost))
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
