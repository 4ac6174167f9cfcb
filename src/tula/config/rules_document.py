"""Rules of the document's own keys, apart from the services."""

from __future__ import annotations

from collections.abc import Iterator

from tula.config.merged import Merged
from tula.config.models import DocumentModel
from tula.config.tree import Value
from tula.model.config import Affinity, IPAddress, Scheduler
from tula.model.problem import Problem

_TURNS = frozenset({Scheduler.RR, Scheduler.WRR, Scheduler.RANDOM, Scheduler.LEAST_CONNECTIONS})


def document_problems(
    root: Value, model: DocumentModel, services: list[Merged]
) -> Iterator[Problem]:
    """What is missing, doubled or contradicts itself at the top."""
    raw = root if isinstance(root, dict) else {}
    if "interfaces" not in raw:
        yield Problem((), "needs 'interfaces'; give those where clients' packets arrive: [eth0]")
    elif raw["interfaces"] == []:
        yield Problem(("interfaces",), "needs at least one interface, such as [eth0]")
    if "services" not in raw:
        yield Problem((), "needs 'services'; give a map of services by name, {} for none")
    yield from _doubled_interfaces(raw.get("interfaces"))
    yield from _doubled_balancers(model)
    if model.marks.last < model.marks.first:
        message = f"0x{model.marks.last:x} is below first, 0x{model.marks.first:x}; give more"
        yield Problem(("marks", "last"), message)
    yield from _slots_suffice(model, services)
    if not model.connections.enabled:
        yield from _need_connections(services)
    for service in services:
        if service.has("scheduler", "affinity") and service.keys.affinity is Affinity.CLIENT:
            yield from _turns_of_clients(service)


def _turns_of_clients(service: Merged) -> Iterator[Problem]:
    """A turn is a connection's: nothing remembers whole clients."""
    if service.keys.scheduler in _TURNS:
        message = f"affinity: client does not go with scheduler: {service.keys.scheduler}"
        yield Problem(service.place("affinity"), f"{message}; use maglev or source-hash")


def _need_connections(services: list[Merged]) -> Iterator[Problem]:
    """What takes turns must remember whose turn it was."""
    for service in services:
        if service.has("scheduler") and service.keys.scheduler in _TURNS:
            message = f"{service.keys.scheduler} needs the connection table, which is disabled"
            yield Problem(
                service.place("scheduler"),
                f"{message}; use maglev or source-hash, or give connections: {{enabled: true}}",
            )


def _doubled_interfaces(raw: object) -> Iterator[Problem]:
    # From the tree, since the positions of the model's list shift when a faulty item is left out.
    seen: dict[str, int] = {}
    for index, name in enumerate(raw if isinstance(raw, list) else []):
        if isinstance(name, str):
            if name in seen:
                message = f"given twice, first as interfaces[{seen[name]}]; keep one"
                yield Problem(("interfaces", index), message)
            seen.setdefault(name, index)


def _doubled_balancers(model: DocumentModel) -> Iterator[Problem]:
    seen: dict[IPAddress, str] = {}
    for name, address in model.load_balancers.items():
        if address in seen:
            message = f"{address} is the address of {seen[address]!r} already; give another"
            yield Problem(("load_balancers", name), message)
        seen.setdefault(address, name)


def _slots_suffice(model: DocumentModel, services: list[Merged]) -> Iterator[Problem]:
    slots = model.maglev.slots
    for service in services if slots else ():
        count = len(service.keys.backends)
        if count > slots:
            message = f"{slots} is less than the {count} backends of service {service.name!r}"
            yield Problem(("maglev", "slots"), f"{message}; give more, 65537 at most")
            return
