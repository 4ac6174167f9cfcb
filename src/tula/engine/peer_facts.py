"""How another balancer stands, as ``tula status`` and the metrics show it. Values alone."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from tula.engine.peer_view import SHOWN, FlowCounts, Otherwise


@dataclass(frozen=True, slots=True)
class PeerFacts:
    """A balancer of ``load_balancers`` that is not this one. None: not known.

    ``added``: this one has a token for it. ``heard``: when it last answered, ``since``: since when
    it has been alive, or not; in seconds since the epoch. ``why``: what keeps it from being heard.
    ``clock``: by how many seconds its clock is ahead of this machine's. What it tells of itself
    stays as it was heard last.
    """

    name: str
    address: str
    added: bool = True
    alive: bool = False
    heard: float | None = None
    since: float | None = None
    why: str = ""
    version: str = ""
    schema: int | None = None
    role: str | None = None
    standby: bool = False
    digest: str = ""
    tentative: bool = False
    configuration_equal: bool | None = None
    overrides_equal: bool | None = None
    services: int | None = None
    served: int | None = None
    otherwise: tuple[Otherwise, ...] = ()
    """backends that it sees otherwise"""
    flows: FlowCounts = field(default_factory=FlowCounts)
    hears_us: bool | None = None
    clock: float | None = None

    def describe(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "name": self.name,
            "address": self.address,
            "added": self.added,
            "alive": self.alive,
            "heard": self.heard,
            "since": self.since,
            "why": self.why or None,
            "version": self.version or None,
            "schema": self.schema,
            "role": self.role,
            "standby": self.standby,
            "digest": self.digest or None,
            "tentative": self.tentative,
            "configuration_equal": self.configuration_equal,
            "overrides_equal": self.overrides_equal,
            "services": self.services,
            "served": self.served,
            "seen_otherwise": [asdict(each) for each in self.otherwise[:SHOWN]],
            "seen_otherwise_total": len(self.otherwise),
            "flows": {"sent": self.flows.sent, "learned": self.flows.learned},
            "hears_us": self.hears_us,
            "clock": None if self.clock is None else round(self.clock, 3),
        }


@dataclass(frozen=True, slots=True)
class BalancerFacts:
    """This balancer among those of its configuration. ``name`` is its own there, empty if it is
    none of them; ``role`` is ``active`` or ``standby``, None without an engine; ``standby``: the
    operator wants it to be."""

    name: str = ""
    role: str | None = None
    standby: bool = False
    flows: FlowCounts = field(default_factory=FlowCounts)
    peers: tuple[PeerFacts, ...] = ()
    problems: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """What status has of it."""
        return {
            "balancer": self.name or None,
            "role": self.role,
            "standby": self.standby,
            "flows": {"sent": self.flows.sent, "learned": self.flows.learned},
            "peers": [peer.describe() for peer in self.peers],
        }
