"""The balancers that this one may ask: ``peers.json`` in the state directory, with their tokens.

The commands change the file, with a daemon and without; the daemon reads it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tula.engine.tokens import looks_like_token
from tula.kernel.directory import Directory, describe_error
from tula.model.errors import StateError

PEERS, LOCK = "peers.json", "peers.lock"
_NAME = re.compile(r"[a-z0-9-]{1,63}")
_FINGERPRINT = re.compile(r"[0-9a-f]{64}")
_VERSION = 1
_WAIT = 10.0
"""Seconds that a command waits for another that changes peers."""
_LINE = "tula-peer-"


def token_name(name: str) -> str:
    """What the token is called by which that peer asks here: ``peer-lb2``."""
    return f"peer-{name}"[:63]  # as long as a token's name may be


class LineError(Exception):
    """What was pasted is no line of ``tula peer``; one line that says what to paste."""


@dataclass(frozen=True, slots=True)
class Peer:
    """Another balancer: where its API answers, the certificate to expect there (SHA-256 in
    hexadecimal), and the token that it gave."""

    name: str
    url: str
    fingerprint: str
    token: str = field(repr=False)

    @property
    def host(self) -> str:
        """The address, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """The TCP port."""
        return urlsplit(self.url).port or 443


@dataclass(frozen=True, slots=True)
class Line:
    """What balancers tell each other when they become peers, as one line that can be pasted:
    who sends it, how to reach it, and a token for whom it is sent to.

    ``answer``: it answers such a line, and wants none in return.
    """

    sender: Peer
    to: str
    answer: bool = False

    def __str__(self) -> str:
        """The token keeps its form, by which tools find secrets."""
        sender, kind = self.sender, "answer" if self.answer else "invitation"
        return (
            f"{_LINE}{kind} {self.to} {sender.name} {sender.url} sha256:{sender.fingerprint} "
            f"{sender.token}"
        )


def parse_line(text: str) -> Line:
    """What ``str(line)`` gave. Raises LineError, which shows nothing of what was pasted."""
    words = text.split()
    try:
        kind, to, name, url, fingerprint, token = words
        sender = Peer(name, url, fingerprint.removeprefix("sha256:"), token)
        if kind not in (f"{_LINE}invitation", f"{_LINE}answer") or not _NAME.fullmatch(to):
            raise ValueError
        _require_valid(sender)
    except ValueError:
        raise LineError(
            "this is no line of tula peer: paste the whole line that tula peer add printed, from "
            f"{_LINE}… to the end of the token"
        ) from None
    return Line(sender, to, kind.endswith("answer"))


class PeerStore:
    """The peers of one state directory. Methods raise StateError."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / PEERS
        self._files = Directory(directory)

    def peers(self) -> tuple[Peer, ...]:
        """All of them, in the order of their names."""
        try:
            text = self._files.read(PEERS)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StateError(f"{self.path}: {error.strerror or error}") from error
        try:
            return _decode(json.loads(text))
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
            raise StateError(
                f"{self.path} is damaged: no peer is asked until it is repaired; remove it, and "
                "make the peers anew: tula peer add"
            ) from None

    def put(self, peer: Peer) -> None:
        """Adds a peer, in place of one of the same name."""
        self._change(lambda peers: (*(p for p in peers if p.name != peer.name), peer))

    def remove(self, name: str) -> bool:
        """Forgets a peer; whether there was one."""
        found: list[Peer] = []

        def without(peers: tuple[Peer, ...]) -> tuple[Peer, ...]:
            found.extend(peer for peer in peers if peer.name == name)
            return tuple(peer for peer in peers if peer.name != name)

        self._change(without)
        return bool(found)

    def _change(self, change: Callable[[tuple[Peer, ...]], tuple[Peer, ...]]) -> None:
        try:
            with self._files.lock(LOCK, _WAIT):
                text = json.dumps(_encode(change(self.peers())), indent=1).encode() + b"\n"
                self._files.write(PEERS, text, 0o600)
        except OSError as error:
            raise StateError(f"{self.path.parent}: {describe_error(error)}") from error


def _encode(peers: tuple[Peer, ...]) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "peers": [
            {"name": p.name, "url": p.url, "sha256": p.fingerprint, "token": p.token}
            for p in sorted(peers, key=lambda peer: peer.name)
        ],
    }


def _decode(data: dict[str, Any]) -> tuple[Peer, ...]:
    if data["version"] != _VERSION:
        raise ValueError(data["version"])
    found = [Peer(p["name"], p["url"], p["sha256"], p["token"]) for p in data["peers"]]
    for peer in found:
        _require_valid(peer)
    if len({peer.name for peer in found}) != len(found):
        raise ValueError("a name is there twice")
    return tuple(found)


def _require_valid(peer: Peer) -> None:
    """Raises ValueError: what is not understood must not be spoken to."""
    parts = urlsplit(peer.url)
    if (
        not _NAME.fullmatch(peer.name)
        or parts.scheme != "https"
        or not parts.hostname
        or parts.port is None
        or not _FINGERPRINT.fullmatch(peer.fingerprint)
        or not looks_like_token(peer.token)
    ):
        raise ValueError(peer.name)
