"""Who asks the daemon, and what they may. Few imports: the gateway's process has this too."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Scope(StrEnum):
    """What a token may do; each may what those before it may, except that of a backend, which
    sees itself and nothing else."""

    BACKEND = "backend"
    """a backend's: its own services and tunnels"""
    READ = "read"
    """sees everything"""
    OPERATE = "operate"
    """drains, weighs, disables, enables, hands over"""
    CONFIGURE = "configure"
    """applies, confirms, rolls back"""
    PEER = "peer"
    """another balancer's"""
    LOCAL = "local"
    """a user of this machine who may write to the daemon's socket; no token has it"""

    def covers(self, needed: Scope) -> bool:
        """Whether this scope is enough where ``needed`` is what it takes."""
        return _ORDER.index(self) >= _ORDER.index(needed)


_ORDER = tuple(Scope)

TOKEN_SCOPES = (Scope.READ, Scope.OPERATE, Scope.CONFIGURE, Scope.PEER)
"""Those that need no name behind them."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A scope, and for ``Scope.BACKEND`` the backend's name."""

    scope: Scope
    backend: str = ""

    def __str__(self) -> str:
        """As users write it: ``read``, ``backend:cache-1``."""
        return f"{self.scope}:{self.backend}" if self.scope is Scope.BACKEND else str(self.scope)


def parse_grant(text: str) -> Grant:
    """What ``str(grant)`` gave. Raises ValueError, with the choices; never gives LOCAL."""
    word, colon, backend = text.partition(":")
    if word == Scope.BACKEND and backend:
        return Grant(Scope.BACKEND, backend)
    for scope in TOKEN_SCOPES:
        if word == scope and not colon:
            return Grant(scope)
    choices = ", ".join(TOKEN_SCOPES)
    raise ValueError(f"no scope {text!r}; give {choices} or backend:NAME")


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: a token's name or a user's, what it may, and the client's address if it has one."""

    name: str
    scope: Scope
    origin: str = ""
    backend: str = ""
    """the backend that a token of ``Scope.BACKEND`` is for"""

    @property
    def who(self) -> str:
        """As history, events and the audit log have it: ``root``, ``token:grafana``."""
        return self.name if self.scope is Scope.LOCAL else f"token:{self.name}"

    @property
    def grant(self) -> Grant:
        """What the caller may."""
        return Grant(self.scope, self.backend)


DAEMON = Caller("daemon", Scope.LOCAL)
"""Nobody: the daemon does it by itself."""


@dataclass(slots=True)
class GatewayProcesses:
    """The processes whose word counts when they name another as the caller.

    The daemon adds its gateway when it has started it, and removes it before it waits for its end:
    until then nobody else can have the number.
    """

    pids: set[int] = field(default_factory=set)
