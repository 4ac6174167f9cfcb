"""udp: what is sent is answered as expected; without ``expect``, it is not refused.

A datagram that nobody takes is often just lost, so that without ``expect`` a host that is down
passes: give one wherever the service answers anything.
"""

from __future__ import annotations

import socket

from tula.health.check import clean
from tula.health.probes.attempt import LIMIT, Attempt, Failure
from tula.model.monitor import UdpProbe


async def probe(settings: UdpProbe, attempt: Attempt) -> str:
    """Sends one datagram, and reads one: only the target's come to a connected socket."""
    with attempt.opened(socket.SOCK_DGRAM) as opened:
        await attempt.connect(opened)
        opened.send(settings.send.encode())
        if not settings.expect:
            attempt.silence_passes = True
            attempt.stage = "not refused"
        answer = await attempt.receive(opened, LIMIT)
    if settings.expect.encode() not in answer:
        got = clean(answer, 80) if answer else "nothing"
        raise Failure(f"answered {got}, wanted {clean(settings.expect, 40)!r}")
    return "answered"
