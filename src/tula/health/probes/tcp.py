"""tcp: the port takes connections; what is sent is answered as expected, if anything is."""

from __future__ import annotations

import socket

from tula.health.check import clean
from tula.health.probes.attempt import LIMIT, Attempt, Failure
from tula.model.monitor import TcpProbe


async def probe(settings: TcpProbe, attempt: Attempt) -> str:
    """Connects, sends, and reads until the text has come."""
    with attempt.opened(socket.SOCK_STREAM) as opened:
        await attempt.connect(opened)
        if settings.send:
            attempt.stage = "connected, but did not accept the data"
            await attempt.loop.sock_sendall(opened, settings.send.encode())
        if settings.expect:
            await _expect(attempt, opened, settings.expect)
    return "connected"


async def _expect(attempt: Attempt, opened: socket.socket, expect: str) -> None:
    wanted = expect.encode()
    attempt.stage = f"connected, but no answer with {clean(expect, 40)!r}"
    answer = bytearray()
    while wanted not in answer[-LIMIT:]:
        data = await attempt.receive(opened, LIMIT - len(answer))
        answer += data
        if not data or len(answer) >= LIMIT:
            if wanted in answer:
                break
            got = clean(bytes(answer[:200]), 80) if answer else "nothing"
            raise Failure(f"answered {got}, wanted {clean(expect, 40)!r}")
