"""The one place that knows which data path and which VIP owners there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tula.dataplane.port import DataPath
from tula.engine.reader import Adapters
from tula.kernel.announce import Announcer, KernelAnnouncer
from tula.kernel.engines import BIRD, KEEPALIVED, Engine, KernelEngine
from tula.kernel.network import KernelNetwork, Network
from tula.kernel.nft_data_path import FORM, NftDataPath
from tula.kernel.nft_guard import KernelGuard
from tula.kernel.nftables import KernelNftables
from tula.kernel.probe_route import KernelProbeRoute
from tula.kernel.sysctls import KernelSysctls
from tula.kernel.tunnels import KernelTunnels
from tula.kernel.vip_routes import KernelVipRoutes, VipRoutes
from tula.model.desired import Announce
from tula.model.host import OwnedAddress
from tula.vip.bgp import BgpVips
from tula.vip.external import ExternalVips
from tula.vip.keepalived import parse_keepalived
from tula.vip.owner import VipOwners
from tula.vip.static import StaticVips
from tula.vip.vrrp import VrrpVips

RULESET_SCHEMA = FORM
"""The number of the form that the data path gives its tables; a newer Tula reads older ones."""


def kernel_adapters(run_dir: Path) -> Adapters:
    """The machine: the network namespace that the calling thread is in, and the engines whose
    files are below the run directory."""
    engines = Engines(
        KernelEngine(KEEPALIVED, run_dir), KernelEngine(BIRD, run_dir), KernelVipRoutes()
    )
    network = KernelNetwork(engines.addresses)
    return Adapters(
        path=kernel_data_path(),
        network=network,
        vips=vip_owners(network, KernelAnnouncer(), engines),
        probe_route=KernelProbeRoute(),
        sysctls=KernelSysctls(),
    )


def kernel_data_path() -> DataPath:
    """The data path alone."""
    return NftDataPath(KernelNftables(), KernelTunnels(), guard=KernelGuard())


@dataclass(frozen=True, slots=True)
class Engines:
    """The engines beside Tula."""

    keepalived: Engine
    bird: Engine
    vip_routes: VipRoutes

    def addresses(self) -> frozenset[OwnedAddress]:
        """What they may have put on this machine's interfaces."""
        return parse_keepalived(self.keepalived.read() or "")


def vip_owners(network: Network, announcer: Announcer, engines: Engines) -> VipOwners:
    """All ways to own VIPs."""
    return VipOwners(
        {
            Announce.STATIC: StaticVips(network, announcer),
            Announce.EXTERNAL: ExternalVips(),
            Announce.VRRP: VrrpVips(engines.keepalived, network),
            Announce.BGP: BgpVips(engines.bird, engines.vip_routes),
        }
    )
