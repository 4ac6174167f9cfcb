"""Whether a request's token counts, for the gateway. Few imports."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from tula.engine.tokens import Token, TokenStore, digest_of_token, looks_like_token
from tula.model.errors import StateError


class Reason(StrEnum):
    """Why a request was refused: short fixed words, of the log and of metrics."""

    NO_TOKEN = "no-token"
    MALFORMED = "malformed-token"
    UNKNOWN = "unknown-token"
    """there is none such, or it was revoked"""
    EXPIRED = "expired-token"
    UNREADABLE = "tokens-unreadable"
    """``tokens.json`` is damaged, or cannot be read"""
    TOO_MANY = "too-many-attempts"
    SCOPE = "scope"
    """it counts, and may not do this"""


@dataclass(frozen=True, slots=True)
class Refused:
    """The answer to a request whose token does not count; ``message`` is for the client."""

    reason: Reason
    status: int
    message: str


_MAKE = "tula token create makes one on the balancer"
_NONE = Refused(
    Reason.NO_TOKEN, 401, f"give a token, by the header Authorization: Bearer …; {_MAKE}"
)
_MALFORMED = Refused(
    Reason.MALFORMED, 401, f"this is no token of Tula's: those are tula_ and 43 characters; {_MAKE}"
)
_UNKNOWN = Refused(Reason.UNKNOWN, 401, f"this token is not known here, or was revoked; {_MAKE}")
_UNREADABLE = Refused(
    Reason.UNREADABLE, 503, "the balancer cannot read its tokens; its log says more"
)

_Signature = tuple[int, int, int, int] | None


class Authenticator:
    """Looks tokens up in ``tokens.json``, which is read again whenever it has changed.

    That is one stat(2) a question: what was revoked a moment ago counts no more.
    """

    def __init__(
        self,
        directory: Path,
        wall: Callable[[], float] = time.time,
        on_unreadable: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``wall`` tells seconds since the epoch; ``on_unreadable`` is told, once each time, why
        the file cannot be read."""
        self._why = ""
        self._store = TokenStore(directory)
        self._wall = wall
        self._on_unreadable = on_unreadable
        self._read: _Signature = None
        self._tokens: dict[str, Token] | None = {}
        """By digest; None: they cannot be read."""

    def authenticate(self, authorization: str | None) -> Token | Refused:
        """The token of an ``Authorization`` header, or why it does not count."""
        if not authorization or not authorization.strip():
            return _NONE
        kind, _, given = authorization.strip().partition(" ")
        given = given.strip()
        if kind.lower() != "bearer" or not looks_like_token(given):
            return _MALFORMED
        self._refresh()
        if self._tokens is None:
            return _UNREADABLE
        digest = digest_of_token(given)
        # The look-up is by the digest, of which a caller can steer nothing; how long it takes
        # tells nothing of a token.
        token = self._tokens.get(digest)
        if token is None or not hmac.compare_digest(token.digest, digest):
            return _UNKNOWN
        if token.expired(self._wall()):
            return Refused(Reason.EXPIRED, 401, f"token {token.name} has expired; {_MAKE}")
        return token

    def still_valid(self, token: Token) -> bool:
        """Whether what ``authenticate`` gave still counts: to be asked often by what stays open."""
        self._refresh()
        return (
            self._tokens is not None
            and self._tokens.get(token.digest) == token
            and not token.expired(self._wall())
        )

    def problem(self) -> str:
        """Why nobody is let in, by a look at the file; empty if it can be read."""
        self._refresh()
        return self._why if self._tokens is None else ""

    def _refresh(self) -> None:
        try:
            found = self._store.path.lstat()
        except FileNotFoundError:
            self._read, self._tokens = None, {}
            return
        except OSError as error:
            self._fail(None, f"{self._store.path}: {error.strerror}")
            return
        signature = (found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size)
        if signature == self._read:
            return
        try:
            tokens = self._store.tokens()
        except StateError as error:
            self._fail(signature, str(error))
        else:
            self._read = signature
            self._tokens = {token.digest: token for token in tokens}

    def _fail(self, signature: _Signature, why: str) -> None:
        if self._tokens is not None or signature != self._read:
            self._on_unreadable(why)
        self._read, self._tokens, self._why = signature, None, why
