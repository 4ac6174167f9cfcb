"""Asks once more, by other ways, why a probe through the data path failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from tula.health.faults import Echoes, name_fault
from tula.health.outcome import Fault, Outcome
from tula.health.probes.icmp import LISTENING
from tula.model.config import HealthMonitor
from tula.model.health import ProbeTarget

Ask = Callable[[HealthMonitor, ProbeTarget, Mapping[str, str]], Awaitable[Outcome]]
"""Sends one probe; the map is a script's environment."""


def can_diagnose(settings: HealthMonitor, direct: ProbeTarget | None) -> bool:
    """Whether there is another way to ask: a script's is its own."""
    return settings.via == "dsr" and direct is not None and settings.type != "script"


async def diagnose(
    settings: HealthMonitor, target: ProbeTarget, direct: ProbeTarget, failed: Outcome, ask: Ask
) -> str:
    """The fault's name, from the backend's own address and, of a silent one, from echoes."""
    none: Mapping[str, str] = {}
    asked: list[Awaitable[Outcome | None]] = [ask(settings, direct, none)]
    silent = failed.fault not in (Fault.REFUSED, Fault.ANSWER)
    echo = HealthMonitor("icmp", timeout=settings.timeout)
    forwarded = replace(target, address=direct.address, port=0)
    if silent and direct.address.version == target.address.version:
        # The way of the VIP's packets without the VIP: does anything come through?
        asked.append(ask(replace(echo, extra=(LISTENING,)), forwarded, none))
    else:
        asked.append(_nothing())
    if silent and settings.type != "icmp":
        asked += [ask(echo, replace(where, port=0), none) for where in (target, direct)]
    twin, through, *rest = await asyncio.gather(*asked)
    assert twin is not None
    # Of an echo monitor, the twin is the echo to the backend's own address.
    to_vip, to_own = rest or (None, twin if settings.type == "icmp" else None)
    echoes = Echoes(to_vip, to_own, through)
    return name_fault(target.port, failed, twin, echoes, target.address.version)


async def _nothing() -> None:
    return None
