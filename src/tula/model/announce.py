"""Who tells the network of a VIP."""

from __future__ import annotations

from tula.model.config import Config, VirtualService
from tula.model.desired import Announce

ENGINES = frozenset({Announce.VRRP, Announce.BGP})
"""What ``announce`` may say in place of an interface."""


def announced_by(config: Config, service: VirtualService) -> Announce:
    """Who tells the network of a service's VIPs."""
    settings = config.high_availability
    if service.announce is False:
        return Announce.EXTERNAL
    if not settings.enabled:
        return Announce.STATIC
    if service.announce in ENGINES:
        return Announce(service.announce)
    return Announce.BGP if settings.vrrp is None else Announce.VRRP
