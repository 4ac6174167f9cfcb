"""The one place that knows which data path and which VIP owners there are."""

from __future__ import annotations

from tula.dataplane.port import DataPath
from tula.engine.reader import Adapters
from tula.kernel.announce import Announcer, KernelAnnouncer
from tula.kernel.network import KernelNetwork, Network
from tula.kernel.nft_data_path import NftDataPath
from tula.kernel.nft_guard import KernelGuard
from tula.kernel.nftables import KernelNftables
from tula.kernel.probe_route import KernelProbeRoute
from tula.kernel.sysctls import KernelSysctls
from tula.kernel.tunnels import KernelTunnels
from tula.model.desired import Announce
from tula.vip.external import ExternalVips
from tula.vip.owner import VipOwners
from tula.vip.static import StaticVips


def kernel_adapters() -> Adapters:
    """The machine: the network namespace that the calling thread is in."""
    network = KernelNetwork()
    return Adapters(
        path=kernel_data_path(),
        network=network,
        vips=vip_owners(network, KernelAnnouncer()),
        probe_route=KernelProbeRoute(),
        sysctls=KernelSysctls(),
    )


def kernel_data_path() -> DataPath:
    """The data path alone."""
    return NftDataPath(KernelNftables(), KernelTunnels(), guard=KernelGuard())


def vip_owners(network: Network, announcer: Announcer) -> VipOwners:
    """All ways to own VIPs."""
    return VipOwners(
        {
            Announce.STATIC: StaticVips(network, announcer),
            Announce.EXTERNAL: ExternalVips(),
        }
    )
