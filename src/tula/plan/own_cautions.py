"""What a machine lacks to be a backend of the services that it balances. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tula.model.announce import announced_by
from tula.model.config import Backend, Config, IPAddress, VirtualService
from tula.model.desired import Announce
from tula.model.host import HostView
from tula.plan.cautions import Caution
from tula.plan.high_availability import own_balancer

_SHOWN = 3


def own_cautions(
    config: Config, host: HostView, serves_here: Callable[[Backend], bool]
) -> Iterator[Caution]:
    """The own stack takes packets for addresses of its own alone."""
    if config.load_balancers and own_balancer(config, host) is None:
        return  # no balancer: nobody here is "self"
    if not all(name in host.links for name in config.interfaces):
        return
    for service in config.services:
        for backend in service.backends:
            if serves_here(backend):
                missing = _missing(config, service, backend, host)
                if missing:
                    yield _caution(service, backend, missing)


def _missing(
    config: Config, service: VirtualService, backend: Backend, host: HostView
) -> list[IPAddress]:
    """The VIPs for which other balancers may send packets while they are not this machine's."""
    way = announced_by(config, service)
    if way is Announce.STATIC:
        return []
    # An engine's address goes when another balancer becomes active, and from then on that sends
    # packets here; but to none that is "self".
    moves = way is Announce.VRRP and not backend.is_self
    held = {each.address.ip for each in host.addresses if each.quiet or not moves}
    return [vip for vip in service.vips if vip not in held]


def _caution(service: VirtualService, backend: Backend, missing: list[IPAddress]) -> Caution:
    shown = ", ".join(map(str, missing[:_SHOWN])) + (", …" if len(missing) > _SHOWN else "")
    it = "it" if len(missing) == 1 else "them"
    return Caution(
        "own-vip-missing", "lo",
        ("services", service.name, "backends", backend.name, "address"),
        f"{backend.name} is this machine, which does not hold {shown} on lo: its own stack refuses "
        f"packets for {it} when they are not announced here",
        f"have tula backend join put {it} there",
        commands=("tula backend join",),
    )  # fmt: skip
