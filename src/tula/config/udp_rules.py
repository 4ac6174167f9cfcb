"""Rules of ``udp_scheduling: packet``."""

from __future__ import annotations

from collections.abc import Iterator

from tula.config.services import Merged
from tula.model.config import Protocol, Scheduler, UdpScheduling
from tula.model.problem import Problem

_PACKET = f"udp_scheduling: {UdpScheduling.PACKET}"
_HASHES = frozenset({Scheduler.MAGLEV, Scheduler.SOURCE_HASH})


def udp_problems(service: Merged) -> Iterator[Problem]:
    """What each packet's own choice cannot be combined with."""
    value = service.value
    if not service.has("udp_scheduling") or value.udp_scheduling is not UdpScheduling.PACKET:
        return
    path = service.given["udp_scheduling"]
    if not service.sound("protocol", "scheduler"):
        return
    if not value.per_packet:
        if path[:1] == ("services",):  # defaults may be for other services
            message = f"{_PACKET} is for UDP, and this service is for {value.protocols[0]} alone"
            yield Problem(path, f"{message}; leave it out, or give protocol: udp")
        return
    alone = value.protocols == (Protocol.UDP,)
    if value.scheduler in _HASHES:
        message = f"{value.scheduler} would choose the same backend for each packet of a sender"
        yield Problem(path, f"{_PACKET} needs scheduler: rr, wrr or random; {message}")
    elif alone and value.scheduler is Scheduler.LEAST_CONNECTIONS:
        message = f"{_PACKET} leaves no connections to count for {value.scheduler}"
        yield Problem(path, f"{message}; use rr, wrr or random")
