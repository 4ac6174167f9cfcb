"""Rules of backends among themselves: backups, ``minimum``, a tunnel for some of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tula.config.services import Merged
from tula.config.tree import Positions
from tula.model.config import Backend, Config, Forwarding
from tula.model.problem import Problem
from tula.model.wording import counted


def pool_problems(service: Merged, positions: Positions) -> Iterator[Problem]:
    """What can never be of a service's backends."""
    if not service.has("backends"):
        return
    value = service.value
    primaries = sum(not backend.backup for backend in value.backends)
    written = len(positions.keys(service.given["backends"]) or ())
    whole = len(value.backends) == written and written > 0
    if whole and service.sound("minimum") and value.minimum > max(primaries, 1):
        what = counted(primaries, "backend")
        yield Problem(
            service.place("minimum"),
            f"a minimum of {value.minimum} is more than the {what} that "
            f"{'is' if primaries == 1 else 'are'} no backup; give {max(primaries, 1)} or less",
        )
    if not service.has("forwarding"):
        return
    for backend in value.backends:
        if backend.is_self:
            yield from _ways_to_itself(service, backend)
        elif backend.tunnel is not None and value.forwarding_of(backend) is Forwarding.L2:
            yield Problem(
                (*service.given["backends"], backend.name, "tunnel"),
                f"a tunnel is for l3, and backend {backend.name!r} has forwarding l2; give it "
                "forwarding: l3, or remove tunnel",
                on_key=True,
            )


def _ways_to_itself(service: Merged, backend: Backend) -> Iterator[Problem]:
    for key, given in (("forwarding", backend.forwarding), ("tunnel", backend.tunnel)):
        if given is not None:
            yield Problem(
                (*service.given["backends"], backend.name, key),
                f"backend {backend.name!r} is the balancer itself, and no packet for it leaves it; "
                f"remove {key}",
                on_key=True,
            )


def tunnel_to_balancer_problems(
    config: Config, services: Iterable[Merged], positions: Positions
) -> Iterator[Problem]:
    """A balancer's own tunnels and those that end there would be the same devices."""
    names = {address: name for name, address in config.load_balancers}
    for service in services:
        if not service.has("backends", "forwarding"):
            continue
        for backend in service.value.backends:
            path = (*service.given["backends"], backend.name, "address")
            for index, address in enumerate(backend.addresses):
                if address in names and service.value.tunnel_of(backend) is not None:
                    yield Problem(
                        positions.item(path, index, len(backend.addresses)),
                        f"{address} is balancer {names[address]!r}, and a balancer serves with l2 "
                        "alone; give it forwarding: l2, or let it only balance",
                    )


def pool_warnings(service: Merged) -> Iterator[Problem]:
    """What is allowed, and hardly meant."""
    backends = service.value.backends
    if service.has("backends") and backends and all(backend.backup for backend in backends):
        message = "all backends are backups, so the lowest level serves; let some be none"
        yield Problem(service.place("backends"), message)
