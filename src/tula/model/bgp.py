"""What the BGP speaker of this machine is to be."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address

from tula.model.config import IPAddress


@dataclass(frozen=True, slots=True)
class BgpSession:
    """A BGP session with one router.

    ``interface`` is empty for a router that is not on-link (multihop). ``next_hops`` are the
    address families (4, 6) whose VIPs it carries, each with the next hop that is told; None where
    that is ``local``, or where the router must take the next hop of the other family (RFC 8950).
    """

    router: IPAddress
    router_as: int
    local: IPAddress
    interface: str
    next_hops: tuple[tuple[int, IPAddress | None], ...]


@dataclass(frozen=True, slots=True)
class DesiredBgp:
    """Its identifier, its AS and its sessions; ``bfd`` in seconds, 0 for none."""

    router_id: IPv4Address
    number: int
    bfd: float
    sessions: tuple[BgpSession, ...]


@dataclass(frozen=True, slots=True)
class BgpSessionState:
    """How a session is, as the speaker says.

    ``state`` is a word of RFC 4271's (``Established``, ``Active``, ``Connect``, ``Idle`` …) or the
    speaker's own; ``since`` seconds of the Unix epoch. ``versions`` are the address families that
    the router takes, ``routes`` how many it was told of. ``bfd`` is a word of RFC 5880's (``Up``,
    ``Down``, ``Init``), empty where there is no BFD session. ``error``: why it ended last.
    """

    router: IPAddress
    state: str
    since: float | None = None
    routes: int = 0
    versions: tuple[int, ...] = ()
    bfd: str = ""
    error: str = ""

    @property
    def established(self) -> bool:
        """Whether the router hears of VIPs."""
        return self.state == "Established"
