"""Which of a document's backends this machine is."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tula.agent.plan import Role, role_by_addresses, role_by_name
from tula.agent.record import Record, Source
from tula.config.load import DocumentError, parse_document
from tula.model.config import Config, IPAddress
from tula.model.errors import KernelError


class NotFoundError(Exception):
    """This machine is none of the document's backends; one line that names the mend."""


def find_role(
    file: str, config: Config, addresses: Collection[IPAddress], name: str | None = None
) -> Role:
    """By a name, else by the machine's own addresses. Raises NotFoundError."""
    known = ", ".join(sorted({b.name for s in config.services for b in s.backends})[:20]) or "none"
    if name is not None:
        role = role_by_name(config, name)
        if role is None:
            raise NotFoundError(f"no backend {name!r} in {file}; there are: {known}")
        return role
    role = role_by_addresses(config, addresses)
    if role is None:
        here = ", ".join(sorted(map(str, addresses))[:20]) or "none"
        raise NotFoundError(
            f"no backend in {file} has an address of this machine ({here}); "
            f"name one with --as: {known}"
        )
    return role


def roles_of(record: Record, addresses: Collection[IPAddress]) -> Sequence[Role]:
    """Those of the documents that were joined; at boot the machine may not have its addresses yet.

    Raises NotFoundError, and KernelError for a document that this Tula does not take.
    """
    from ipaddress import ip_address

    known = {*addresses, *map(ip_address, record.addresses)}
    return [_role(source, known) for source in record.sources]


def _role(source: Source, addresses: Collection[IPAddress]) -> Role:
    try:
        config = parse_document(source.text).config
    except DocumentError as error:
        raise KernelError(
            f"the document of {source.file} that was joined is refused now: "
            f"{error.problems[0].message}; join again with -f"
        ) from error
    return find_role(source.file, config, addresses, source.name)
