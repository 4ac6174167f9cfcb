"""Other balancers that forward to this machine, where it is a backend of theirs as well. Pure."""

from __future__ import annotations

from tula.model.config import Config, Forwarding, IPAddress
from tula.model.host import HostView


def forwarders(config: Config, host: HostView) -> tuple[IPAddress, ...]:
    """The addresses of the balancers that may send this machine frames for VIPs, as their backend.

    None where it is no backend by an address of its own, as it is by ``self``: that is another
    machine to each balancer. With l3 packets come out of a tunnel, by an interface that is not
    listed. ``host`` has the routes to the backends.
    """
    own = {address for address, route in host.routes.items() if route.kind == "local"}
    if not own or not config.load_balancers:
        return ()
    serves = any(
        not own.isdisjoint(backend.addresses) and service.forwarding_of(backend) is Forwarding.L2
        for service in config.services
        for backend in service.backends
    )
    if not serves:
        return ()
    held = {each.address.ip for each in host.addresses}
    return tuple(address for _, address in config.load_balancers if address not in held)


def forwarder_macs(config: Config, host: HostView) -> tuple[bytes, ...]:
    """Their MAC addresses, as far as they are known here."""
    found = (host.macs.get(address) for address in forwarders(config, host))
    return tuple(sorted({mac for mac in found if mac}))


def unknown_forwarders(config: Config, host: HostView) -> tuple[tuple[str, IPAddress], ...]:
    """Those whose MAC is not known, by the interface of whose subnet they are."""
    return tuple(
        (held.interface, address)
        for address in forwarders(config, host)
        if address not in host.macs
        for held in host.addresses
        if held.native and address in held.address.network and held.interface in host.links
    )
