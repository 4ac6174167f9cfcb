"""What the engines that announce VIPs must know beside the VIPs."""

from __future__ import annotations

from dataclasses import dataclass

from tula.model.bgp import DesiredBgp
from tula.model.config import IPAddress
from tula.model.high_availability import HighAvailability


@dataclass(frozen=True, slots=True)
class Announcing:
    """One balancer among several: the settings, and who is who.

    ``name`` and ``address`` are this machine's in ``load_balancers``, ``peers`` the others;
    ``interface`` holds the address. ``hold_down``: for so long (seconds) a better balancer waits
    before it takes VIPs from one that serves fewer services, since two that see the same do not
    see it at the same moment. ``near``: those peers that are in a subnet of this machine's, whose
    packets no router has passed on.
    """

    settings: HighAvailability
    name: str
    address: IPAddress
    interface: str
    peers: tuple[tuple[str, IPAddress], ...]
    hold_down: float = 3.0
    near: frozenset[IPAddress] = frozenset()
    bgp: DesiredBgp | None = None
    """None: without BGP, or where it has no session to make."""
