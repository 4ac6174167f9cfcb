"""Which of a configuration's backends this machine is."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tula.agent.plan import Role, balancers_here, role_by_addresses, role_by_name
from tula.agent.record import Record, Source
from tula.config.load import ConfigError, parse_config
from tula.model.config import Config, IPAddress
from tula.model.errors import KernelError


class NotABackendError(Exception):
    """This machine is none of the configuration's backends; one line that says how to fix it."""


def find_role(
    file: str, config: Config, addresses: Collection[IPAddress], name: str | None = None
) -> Role:
    """The role of this name, or the one of the machine's own addresses.

    Of the addresses, the VIPs do not count. Raises NotABackendError: also for a machine that has no
    address of that backend, since the balancer sends to that address.
    """
    own = _without_vips(config, addresses)
    return _named(file, config, own, name) if name is not None else _own(file, config, own)


def _named(file: str, config: Config, own: Collection[IPAddress], name: str) -> Role:
    role = role_by_name(config, name, own)
    if role is None:
        raise NotABackendError(f"no backend {name!r} in {file}; its backends are: {_names(config)}")
    wanted = {address for _, backend in role.serves for address in backend.addresses}
    if wanted and wanted.isdisjoint(own):
        raise NotABackendError(
            f"this machine has no address of the backend {name} of {file} "
            f"({_listed(wanted)}); it has {_listed(own)}. Join on the machine that has it, add the "
            "address here, or correct it in the configuration"
        )
    return role


def _own(file: str, config: Config, own: Collection[IPAddress]) -> Role:
    role = role_by_addresses(config, own)
    if role is None and (here := balancers_here(config, own)):
        name, address = here[0]
        raise NotABackendError(
            f"this machine is the balancer {name} ({address}) of {file}, and no backend of it; "
            "join on the backends"
        )
    if role is None:
        raise NotABackendError(
            f"no backend in {file} has an address of this machine ({_listed(own)}); "
            f"its backends are: {_names(config)}"
        )
    return role


def _without_vips(config: Config, addresses: Collection[IPAddress]) -> set[IPAddress]:
    return set(addresses) - {vip for service in config.services for vip in service.vips}


def _names(config: Config) -> str:
    names = sorted({b.name for service in config.services for b in service.backends})
    return ", ".join(names[:20]) or "none"


def _listed(addresses: Collection[IPAddress]) -> str:
    return ", ".join(sorted(str(a) for a in addresses if not a.is_link_local)[:20]) or "none"


def roles_of(record: Record, addresses: Collection[IPAddress]) -> Sequence[Role]:
    """The roles of the configurations that were joined, even before the machine has its addresses.

    Raises NotABackendError, and KernelError for a configuration that this version refuses.
    """
    from ipaddress import ip_address

    # What was accepted when the machine joined is not judged again: it must come back at boot.
    known = {*addresses, *map(ip_address, record.addresses)}
    return [_role(source, known) for source in record.sources]


def _role(source: Source, addresses: Collection[IPAddress]) -> Role:
    try:
        config = parse_config(source.text).config
    except ConfigError as error:
        raise KernelError(
            f"the configuration joined from {source.file} is not valid for this version of Tula: "
            f"{error.problems[0].message}; join again with -f"
        ) from error
    own = _without_vips(config, addresses)
    if source.name is not None:
        role = role_by_name(config, source.name, own)
    else:
        role = role_by_addresses(config, own)
    return role or find_role(source.file, config, addresses, source.name)
