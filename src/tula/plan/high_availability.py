"""Several balancers as one system: which of them this machine is, who announces what, which
services are served here, and who must know its flows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import ceil

from tula.model.announce import announced_by
from tula.model.announcing import Announcing
from tula.model.config import Config, IPAddress
from tula.model.desired import Announce, SharedWith
from tula.model.health import BackendName, BackendStatus, State
from tula.model.high_availability import Role, SharedFlows
from tula.model.host import HostView

_SERVE = frozenset({State.UP, State.UNKNOWN})
"""Backends that get new connections, by their own health: those without checks do, too."""
_LEAST_HOLD_DOWN = 2.0


def vips_by(config: Config, way: Announce) -> frozenset[IPAddress]:
    """The VIPs that are announced in this way."""
    return frozenset(
        vip
        for service in config.services
        if announced_by(config, service) is way
        for vip in service.vips
    )


def served(config: Config, statuses: Mapping[BackendName, BackendStatus]) -> Mapping[str, bool]:
    """Which services are served here, by name: those with enough backends up for their
    ``announce_while``.

    Drained backends, those of weight 0 and those that wait for their first pass do not count, and
    neither do those that serve although they are down, since too few are up
    (``panic_threshold``): another balancer may see them up. Backups count, whether they serve or
    stand by; where nobody serves, since fewer can than the ``minimum``, none does.
    """
    found = {}
    for service in config.services:
        names = ((service.name, backend.name) for backend in service.backends)
        able = [statuses[n] for n in names if n in statuses and statuses[n].state in _SERVE]
        up = len(able) if any(status.weight for status in able) else 0
        found[service.name] = up >= service.policy.announce_while
    return found


def vrrp_interface(config: Config, host: HostView) -> str:
    """Where VRRP's adverts are sent on this machine: as configured, else the interface with its
    address in ``load_balancers``. Empty without VRRP, and on a machine that is no balancer of this
    configuration."""
    settings = config.high_availability.vrrp
    if settings is None:
        return ""
    own = own_balancer(config, host)
    if own is None:
        return ""
    holder = next(held.interface for held in host.addresses if held.address.ip == own[1])
    return settings.interface or holder


def own_balancer(config: Config, host: HostView) -> tuple[str, IPAddress] | None:
    """The name and the address of this machine in ``load_balancers``; None if it is none of them.

    VIPs do not count: they move.
    """
    vips = {vip for service in config.services for vip in service.vips}
    own = {held.address.ip for held in host.addresses if held.native} - vips
    return next((entry for entry in config.load_balancers if entry[1] in own), None)


def plan_role(config: Config, host: HostView, *, standby: bool) -> Role | None:
    """What this balancer is, by what is there; None where nobody announces.

    With VRRP it is active when it has the VIPs. With BGP alone all are active, but those that the
    operator has on ``standby``.
    """
    if not config.high_availability.enabled or own_balancer(config, host) is None:
        return None
    vips = vips_by(config, Announce.VRRP)
    if vips:
        there = any(
            held.address.ip in vips and not held.ours and not held.quiet for held in host.addresses
        )
        return Role.ACTIVE if there else Role.STANDBY
    return Role.STANDBY if standby else Role.ACTIVE


def plan_sharing(config: Config, host: HostView) -> SharedWith | None:
    """Who must know the flows of this machine; None where nobody must, or it is no balancer of
    this configuration."""
    settings = config.high_availability
    if not settings.enabled or settings.flows is SharedFlows.NONE:
        return None
    own = own_balancer(config, host)
    if own is None or not config.connections.enabled:
        return None
    name, local = own
    peers = tuple(address for other, address in config.load_balancers if other != name)
    if not peers:
        return None
    every = settings.flows is SharedFlows.ALL
    return SharedWith(local, peers, settings.port, every, _near(peers, local, host))


def plan_announcing(config: Config, host: HostView) -> Announcing | None:
    """What the engines must know; None where there are none, or this machine is no balancer of
    this configuration."""
    if not config.high_availability.enabled:
        return None
    own = own_balancer(config, host)
    if own is None:
        return None
    name, address = own
    interface = next(held.interface for held in host.addresses if held.address.ip == address)
    peers = tuple(entry for entry in config.load_balancers if entry[0] != name)
    near = _near((peer for _, peer in peers), address, host)
    return Announcing(
        *(config.high_availability, name, address, interface, peers),
        hold_down=plan_hold_down(config),
        near=near,
    )


def _near(peers: Iterable[IPAddress], own: IPAddress, host: HostView) -> frozenset[IPAddress]:
    """Those peers that are in a subnet of the interface with this machine's own address."""
    on = {held.interface for held in host.addresses if held.address.ip == own}
    subnets = [held.address.network for held in host.addresses if held.interface in on]
    return frozenset(peer for peer in peers if any(peer in subnet for subnet in subnets))


def plan_hold_down(config: Config) -> float:
    """Seconds by which two balancers may see the same backend go down, rounded up: their checks
    are not at the same time, and one may wait for an answer that the other was refused."""
    longest = max(
        (
            monitor.interval + monitor.timeout
            for service in config.services
            for monitor in service.health
        ),
        default=0.0,
    )
    return float(ceil(max(longest, _LEAST_HOLD_DOWN)))
