"""Which of a configuration's backends this machine is."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tula.agent.plan import Role, role_by_addresses, role_by_name
from tula.agent.record import Record, Source
from tula.config.load import ConfigError, parse_config
from tula.model.config import Config, IPAddress
from tula.model.errors import KernelError


class NotABackendError(Exception):
    """This machine is none of the configuration's backends; one line that says how to fix it."""


def find_role(
    file: str, config: Config, addresses: Collection[IPAddress], name: str | None = None
) -> Role:
    """The role of this name, or the one of the machine's own addresses. Raises NotABackendError."""
    known = ", ".join(sorted({b.name for s in config.services for b in s.backends})[:20]) or "none"
    if name is not None:
        role = role_by_name(config, name)
        if role is None:
            raise NotABackendError(f"no backend {name!r} in {file}; its backends are: {known}")
        return role
    role = role_by_addresses(config, addresses)
    if role is None:
        here = ", ".join(sorted(map(str, addresses))[:20]) or "none"
        raise NotABackendError(
            f"no backend in {file} has an address of this machine ({here}); "
            f"choose one with --as: {known}"
        )
    return role


def roles_of(record: Record, addresses: Collection[IPAddress]) -> Sequence[Role]:
    """The roles of the configurations that were joined, even before the machine has its addresses.

    Raises NotABackendError, and KernelError for a configuration that this version refuses.
    """
    from ipaddress import ip_address

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
    return find_role(source.file, config, addresses, source.name)
