"""This machine as one of several balancers: who they are, and what it shows of that before any
packet is sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tula.doctor.engine_state import EngineState, observe_engine
from tula.kernel.base_chains import read_own_chains
from tula.kernel.engines import BIRD, KEEPALIVED, KernelEngine
from tula.kernel.vip_routes import KernelVipRoutes, VipTable
from tula.model.bgp import BgpSessionState
from tula.model.chain import BaseChain
from tula.model.config import Config, IPAddress
from tula.model.desired import Announce, SharedWith
from tula.model.errors import KernelError
from tula.model.high_availability import Vrrp
from tula.model.host import HostView
from tula.plan.high_availability import own_balancer, plan_sharing, vips_by, vrrp_interface
from tula.vip.bird_control import BirdControl

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
    engines: Sequence[EngineState] = ()
    sessions: Sequence[BgpSessionState] = ()
    """Those of BGP; none where BIRD does not answer."""
    vip_table: VipTable | None = None
    """The VIPs that BIRD learns; None without BGP."""

    def peer(self, name: str) -> Mapping[str, Any] | None:
        """What the daemon knows of another balancer; None: nothing."""
        peers = (self.status or {}).get("peers") or ()
        return next((peer for peer in peers if peer.get("name") == name), None)

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
    config: Config,
    host: HostView,
    status: Callable[[], Mapping[str, Any] | None],
    run_dir: Path,
) -> Cluster | None:
    """None on a machine that is not one of several balancers. Raises KernelError.

    ``run_dir`` has the engines' files."""
    own, settings = own_balancer(config, host), config.high_availability
    if not settings.enabled or own is None:
        return None
    interface = vrrp_interface(config, host)
    vips = vips_by(config, Announce.VRRP)
    programs = [*([KEEPALIVED] if vips else []), *([BIRD] if settings.bgp is not None else [])]
    return Cluster(
        *own,
        tuple(entry for entry in config.load_balancers if entry[0] != own[0]),
        interface=interface if interface in host.links else "",
        vrrp=settings.vrrp if vips else None,
        vips=vips,
        shared_with=plan_sharing(config, host),
        chains=read_own_chains(),
        status=status(),
        engines=[observe_engine(KernelEngine(program, run_dir)) for program in programs],
        sessions=_sessions(run_dir) if settings.bgp is not None else (),
        vip_table=KernelVipRoutes().read() if settings.bgp is not None else None,
    )


def _sessions(run_dir: Path) -> Sequence[BgpSessionState]:
    try:
        return BirdControl(run_dir / BIRD.name / "bird.ctl").sessions()
    except KernelError:
        return ()  # that it does not run is found by its process
