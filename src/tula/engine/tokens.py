"""The API's tokens: ``tokens.json`` in the state directory, which holds digests and no token.

A token is 256 random bits, so SHA-256 keeps it as safe as anything slow would, and a fleet may
ask often. The commands change the file, with a daemon and without; the gateway reads it. Few
imports: the gateway's process has this too.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tula.engine.callers import Grant, parse_grant
from tula.kernel.directory import Directory, describe_error
from tula.model.errors import StateError

TOKENS, LOCK = "tokens.json", "tokens.lock"
PREFIX = "tula_"
"""Of every token, so that tools which look for secrets in files find it."""
_BYTES = 32
_TOKEN = re.compile(PREFIX + r"[A-Za-z0-9_-]{43}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[a-z0-9-]{1,63}")
"""As ``tula.config.addresses`` has it, whose imports are too many here."""
_VERSION = 1
_WAIT = 10.0
"""Seconds that a command waits for another that changes tokens."""


class TokenError(Exception):
    """What was asked for is wrong; nothing has changed."""


@dataclass(frozen=True, slots=True)
class Token:
    """What is known of a token. Times are in seconds since the epoch; ``expires`` None: never."""

    name: str
    digest: str
    """SHA-256 of the token, in hexadecimal"""
    grant: Grant
    created: float
    expires: float | None
    by: str
    """who had it made"""

    def expired(self, now: float) -> bool:
        """Whether it no longer counts at ``now``."""
        return self.expires is not None and now >= self.expires


def digest_of_token(token: str) -> str:
    """SHA-256 in hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def looks_like_token(text: str) -> bool:
    """Whether it has the form of one."""
    return _TOKEN.fullmatch(text) is not None


class TokenStore:
    """The tokens of one state directory. Methods raise StateError.

    A file that is damaged is an error to everybody who reads it, and never no tokens.
    """

    def __init__(self, directory: Path, wall: Callable[[], float] = time.time) -> None:
        """``wall`` tells seconds since the epoch."""
        self.path = directory / TOKENS
        self._files = Directory(directory)
        self._wall = wall

    def tokens(self) -> tuple[Token, ...]:
        """All of them, in the order in which they were made, expired ones too."""
        try:
            text = self._files.read(TOKENS)
        except FileNotFoundError:
            return ()
        except OSError as error:
            raise StateError(f"{self.path}: {error.strerror or error}") from error
        try:
            return _decode(json.loads(text))
        except (LookupError, ValueError, TypeError, AttributeError, RecursionError):
            raise StateError(
                f"{self.path} is damaged: no token counts until it is repaired; put a copy of it "
                "back, or remove it and make the tokens anew"
            ) from None

    def create(
        self,
        name: str,
        grant: Grant,
        lifetime: float | None,
        by: str,
        *,
        anew: bool = False,
    ) -> tuple[str, Token]:
        """Makes a token that lasts ``lifetime`` seconds, None: until it is revoked.

        The first of the results is the token itself, which is nowhere else. ``anew``: one of that
        name, if there is one, counts no more. Raises TokenError.
        """
        if not _NAME.fullmatch(name):
            raise TokenError(f"invalid name {name!r}; use 1 to 63 of a-z, 0-9 and - (hyphen)")
        if grant.backend and not _NAME.fullmatch(grant.backend):
            raise TokenError(
                f"no backend can be called {grant.backend!r}; use 1 to 63 of a-z, 0-9 and -"
            )
        secret, now = PREFIX + secrets.token_urlsafe(_BYTES), self._wall()
        expires = None if lifetime is None else now + lifetime
        made = Token(name, digest_of_token(secret), grant, now, expires, by)

        def add(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
            if anew:
                tokens = tuple(each for each in tokens if each.name != name)
            elif any(each.name == name for each in tokens):
                raise TokenError(
                    f"there is a token {name} already; revoke it (tula token revoke {name}), or "
                    "choose another name"
                )
            return (*tokens, made)

        self._change(add)
        return secret, made

    def revoke(self, name: str) -> Token:
        """Removes a token; it counts no more from now on. Raises TokenError if there is none."""
        found: list[Token] = []

        def remove(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
            found.extend(each for each in tokens if each.name == name)
            if not found:
                known = ", ".join(each.name for each in tokens[:20])
                hint = f"there are {known}" if known else "there are none"
                raise TokenError(f"no token {name!r}; {hint}")
            return tuple(each for each in tokens if each.name != name)

        self._change(remove)
        return found[0]

    def _change(self, change: Callable[[tuple[Token, ...]], tuple[Token, ...]]) -> None:
        try:
            with self._files.lock(LOCK, _WAIT):
                changed = change(self.tokens())
                text = json.dumps(_encode(changed), indent=1).encode() + b"\n"
                self._files.write(TOKENS, text, 0o600)
        except OSError as error:
            raise StateError(f"{self.path.parent}: {describe_error(error)}") from error


def _encode(tokens: tuple[Token, ...]) -> dict[str, Any]:
    return {
        "version": _VERSION,
        "tokens": [
            {
                "name": token.name,
                "sha256": token.digest,
                "scope": str(token.grant),
                "created": token.created,
                "expires": token.expires,
                "by": token.by,
            }
            for token in tokens
        ],
    }


def _decode(data: dict[str, Any]) -> tuple[Token, ...]:
    """Strict: what is not understood here must not become a token that may more than was meant."""
    if data["version"] != _VERSION:
        raise ValueError(data["version"])
    found = tuple(_decode_token(each) for each in data["tokens"])
    if len({each.name for each in found}) != len(found):
        raise ValueError("a name is there twice")
    return found


def _decode_token(given: dict[str, Any]) -> Token:
    name, digest, expires = given["name"], given["sha256"], given["expires"]
    if not _NAME.fullmatch(name) or not _DIGEST.fullmatch(digest):
        raise ValueError(name)
    return Token(
        name=name,
        digest=digest,
        grant=parse_grant(given["scope"]),
        created=_moment(given["created"]),
        expires=None if expires is None else _moment(expires),
        by=str(given["by"]),
    )


def _moment(given: Any) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float) or not math.isfinite(given):
        raise ValueError(given)
    return float(given)
