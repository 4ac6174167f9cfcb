"""Several balancers as one system: which of them this machine is, who announces what, and who must
know its flows."""

from __future__ import annotations

from tula.model.config import Config, IPAddress, VirtualService
from tula.model.desired import Announce, SharedWith
from tula.model.high_availability import SharedFlows
from tula.model.host import HostView


def announced_by(config: Config, service: VirtualService) -> Announce:
    """Who tells the network of a service's VIPs."""
    settings = config.high_availability
    if service.announce is False:
        return Announce.EXTERNAL
    if not settings.enabled:
        return Announce.STATIC
    if service.announce in (Announce.VRRP, Announce.BGP):
        return Announce(service.announce)
    return Announce.BGP if settings.vrrp is None else Announce.VRRP


def own_balancer(config: Config, host: HostView) -> tuple[str, IPAddress] | None:
    """The name and the address of this machine in ``load_balancers``; None if it is none of them.

    VIPs do not count: they move.
    """
    vips = {vip for service in config.services for vip in service.vips}
    own = {held.address.ip for held in host.addresses if not held.ours} - vips
    return next((entry for entry in config.load_balancers if entry[1] in own), None)


def plan_sharing(config: Config, host: HostView) -> SharedWith | None:
    """Who must know the flows of this machine; None where nobody must, or it is no balancer of
    this configuration."""
    settings = config.high_availability
    own = own_balancer(config, host)
    if not settings.enabled or settings.flows is SharedFlows.NONE or own is None:
        return None
    if not config.connections.enabled:
        return None
    name, local = own
    peers = tuple(address for other, address in config.load_balancers if other != name)
    if not peers:
        return None
    return SharedWith(local, peers, settings.port, settings.flows is SharedFlows.ALL)
