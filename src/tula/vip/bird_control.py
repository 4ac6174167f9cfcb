"""What BIRD says of its sessions, over its control socket (cli.c: lines ``CODE-text`` or ``CODE
text`` at an answer's end; a space in place of the code goes on with the last)."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from ipaddress import ip_address
from pathlib import Path

from tula.model.bgp import BgpSessionState
from tula.model.config import IPAddress
from tula.model.errors import KernelError

CONTROL = "bird.ctl"
"""The control socket's name, beside BIRD's file."""
_PROTOCOL = re.compile(r"^(\S+) +BGP +\S+ +(\S+) +(\d{4}-\d\d-\d\d [\d:.]+) *(.*)$")
"""Name, table, state, since, what BGP says; of ``timeformat protocol iso long``."""
_CHANNEL = re.compile(r"^ +Channel ipv([46])$")
_EXPORTED = re.compile(r"\b(\d+) exported\b")
_BFD = re.compile(r"^([0-9a-fA-F.:]+)(?:%\S+)? +\S+ +(Up|Down|Init|AdminDown) ")
_TIMEOUT, _MOST = 2.0, 1 << 22
"""Seconds for an answer, and bytes of it."""


class BirdControl:
    """BIRD's control socket; opened for each question."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def sessions(self) -> list[BgpSessionState]:
        """All BGP sessions as they are now. Raises KernelError."""
        protocols, bfd = self._ask("show protocols all", "show bfd sessions")
        return parse_sessions(protocols, bfd)

    def _ask(self, *commands: str) -> list[str]:
        """The answers, a text each. Raises KernelError."""
        deadline = time.monotonic() + _TIMEOUT
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stream:
                stream.settimeout(_TIMEOUT)
                stream.connect(str(self._path))
                lines = _lines(stream, deadline)
                _answer(lines)  # the greeting
                answers = []
                for command in commands:
                    stream.sendall(command.encode() + b"\n")
                    answers.append(_answer(lines))
                return answers
        except OSError as error:
            reason = error.strerror or str(error) or "no answer"
            raise KernelError(f"cannot ask BIRD ({self._path}): {reason}") from error


def _lines(stream: socket.socket, deadline: float) -> Iterator[str]:
    rest, read = b"", 0
    while True:
        if time.monotonic() > deadline or read > _MOST:
            raise TimeoutError
        data = stream.recv(1 << 16)
        if not data:
            raise ConnectionResetError
        read += len(data)
        *whole, rest = (rest + data).split(b"\n")
        yield from (line.decode(errors="replace") for line in whole)


def _answer(lines: Iterator[str]) -> str:
    """The text of one answer, as birdc shows it."""
    texts = []
    for line in lines:
        if line.startswith("+"):
            continue  # asynchronous: a log message, for those who asked for them
        if line.startswith(" "):
            texts.append(line[1:])
            continue
        texts.append(line[5:])
        if line[4:5] == " ":
            break
    return "\n".join(texts)


def parse_sessions(protocols: str, bfd: str) -> list[BgpSessionState]:
    """From the answers to ``show protocols all`` and ``show bfd sessions``."""
    found: list[BgpSessionState] = []
    states = dict(_bfd_states(bfd))
    for block in _blocks(protocols):
        session = _session(block)
        if session is not None:
            found.append(replace(session, bfd=states.get(session.router, "")))
    return found


def _blocks(text: str) -> Iterator[list[str]]:
    """The lines of each protocol."""
    block: list[str] = []
    for line in text.splitlines():
        if line and not line.startswith(" "):
            if block:
                yield block
            block = []
        if line:
            block.append(line)
    if block:
        yield block


def _session(block: list[str]) -> BgpSessionState | None:
    head = _PROTOCOL.match(block[0])
    if head is None:
        return None
    _, state, since, told = head.groups()
    router: IPAddress | None = None
    word, error, channel, up = "", "", 0, False
    versions, routes = [], 0
    for line in block[1:]:
        name, _, value = (part.strip() for part in line.partition(":"))
        if matched := _CHANNEL.match(line):
            channel, up = int(matched[1]), False
        elif name == "Neighbor address":
            router = _address(value)
        elif name == "BGP state":
            word = value
        elif name == "Last error":
            error = value
        elif channel and name == "State":
            up = value == "UP"
            versions += [channel] if up else []
        elif up and name == "Routes" and (exported := _EXPORTED.search(value)):
            routes += int(exported[1])
    if router is None:
        return None
    return BgpSessionState(
        router=router,
        state=word or told.split(" ", 1)[0] or state,
        since=datetime.fromisoformat(since).timestamp(),
        routes=routes,
        versions=tuple(sorted(versions)),
        error=error,
    )


def _bfd_states(text: str) -> Iterator[tuple[IPAddress, str]]:
    for line in text.splitlines():
        if matched := _BFD.match(line):
            router = _address(matched[1])
            if router is not None:
                yield router, matched[2]


def _address(text: str) -> IPAddress | None:
    with suppress(ValueError):
        return ip_address(text.split("%")[0])
    return None
