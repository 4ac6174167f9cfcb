"""This machine as one of several balancers: who they are, and what it shows of that before any
packet is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tula.kernel.base_chains import read_own_chains
from tula.model.chain import BaseChain
from tula.model.config import Config, IPAddress
from tula.model.desired import Announce, SharedWith
from tula.model.high_availability import Vrrp
from tula.model.host import HostView
from tula.plan.high_availability import own_balancer, plan_sharing, vips_by, vrrp_interface

_LEAST, _MOST = 1.0, 3.0
"""Seconds for which adverts are listened for."""
_SILENT = 3.5
"""Intervals after which an active balancer that was not heard counts as dead (RFC 5798, section
6.1: three, and less than one)."""

_VIRTUAL = (bytes.fromhex("00005e0001"), bytes.fromhex("00005e0002"))
"""The beginnings of VRRP's MAC addresses (RFC 5798, section 7.3)."""


@dataclass(frozen=True)
class Cluster:
    """``name`` and ``address`` are this machine's in ``load_balancers``, ``peers`` the others.

    ``interface`` is where VRRP's adverts are sent, empty without VRRP. ``status`` is what the
    daemon tells, None without one.
    """

    name: str
    address: IPAddress
    peers: tuple[tuple[str, IPAddress], ...]
    interface: str = ""
    vrrp: Vrrp | None = None
    vips: frozenset[IPAddress] = frozenset()
    """Those that are announced by VRRP."""
    shared_with: SharedWith | None = None
    chains: Sequence[BaseChain] = field(default=(), repr=False)
    """Others' chains that see what this machine sends and what is for it."""
    status: Mapping[str, Any] | None = field(default=None, repr=False)

    @property
    def names(self) -> Mapping[IPAddress, str]:
        """The peers' names by address."""
        return {address: name for name, address in self.peers}

    @property
    def listening(self) -> float:
        """For how many seconds adverts are listened for; 0: there are none."""
        if self.vrrp is None or not self.interface:
            return 0.0
        return min(max(_LEAST, _SILENT * self.vrrp.interval), _MOST)

    @property
    def hears_all(self) -> bool:
        """Whether that is long enough to say who sends none."""
        return self.vrrp is not None and self.listening >= _SILENT * self.vrrp.interval

    def is_virtual(self, mac: bytes) -> bool:
        """Whether it is VRRP's, which whichever balancer is active has."""
        return self.vrrp is not None and mac[:5] in _VIRTUAL and mac[5:] == bytes([self.vrrp.id])


def observe_cluster(
    config: Config, host: HostView, status: Callable[[], Mapping[str, Any] | None]
) -> Cluster | None:
    """None on a machine that is not one of several balancers. Raises KernelError."""
    own = own_balancer(config, host)
    if not config.high_availability.enabled or own is None:
        return None
    interface = vrrp_interface(config, host)
    return Cluster(
        *own,
        tuple(entry for entry in config.load_balancers if entry[0] != own[0]),
        interface=interface if interface in host.links else "",
        vrrp=config.high_availability.vrrp,
        vips=vips_by(config, Announce.VRRP),
        shared_with=plan_sharing(config, host),
        chains=read_own_chains(),
        status=status(),
    )
