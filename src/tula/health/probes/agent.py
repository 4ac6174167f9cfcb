"""agent: one line of HAProxy's agent-check protocol, read from the backend's own address.

Nothing that goes wrong here speaks against the backend: an agent that does not answer, or not as
it should, changes nothing.
"""

from __future__ import annotations

import re
import socket

from tula.health.check import clean
from tula.health.probes.attempt import Attempt, Failure
from tula.health.words import LONGEST_LINE, parse_agent
from tula.model.monitor import AgentProbe

_END = re.compile(rb"[\r\n]")


async def probe(settings: AgentProbe, attempt: Attempt) -> str:
    """Connects, sends the line that is to be sent, and reads to the end of the first line."""
    with attempt.opened(socket.SOCK_STREAM) as opened:
        await attempt.connect(opened)
        attempt.stage = "connected, but no line"
        if settings.send:
            await attempt.loop.sock_sendall(opened, settings.send.encode() + b"\n")
        line = await _line(attempt, opened)
    attempt.words, strange = parse_agent(line)
    if strange:
        attempt.warning = f"the agent says {strange!r}, which is no word of agent-check"
    return clean(line, 80) or "an empty line"


async def _line(attempt: Attempt, opened: socket.socket) -> bytes:
    got = bytearray()
    while True:
        data = await attempt.receive(opened, LONGEST_LINE - len(got))
        got += data
        end = _END.search(got)
        if end is not None:
            return bytes(got[: end.start()])
        if not data:
            said = repr(clean(bytes(got), 40)) if got else "nothing"
            raise Failure(f"the agent says {said} without the end of a line, which does not count")
        if len(got) >= LONGEST_LINE:
            raise Failure(f"the agent's line does not end within {LONGEST_LINE} bytes")
