"""Rules of backends among themselves: backups, ``minimum``, a tunnel for some of them."""

from __future__ import annotations

from collections.abc import Iterator

from tula.config.services import Merged
from tula.config.tree import Positions
from tula.model.config import Forwarding
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
        if backend.tunnel is not None and value.forwarding_of(backend) is Forwarding.L2:
            yield Problem(
                (*service.given["backends"], backend.name, "tunnel"),
                f"a tunnel is for l3, and backend {backend.name!r} has forwarding l2; give it "
                "forwarding: l3, or remove tunnel",
                on_key=True,
            )


def pool_warnings(service: Merged) -> Iterator[Problem]:
    """What is allowed, and hardly meant."""
    backends = service.value.backends
    if service.has("backends") and backends and all(backend.backup for backend in backends):
        message = "all backends are backups, so the lowest level serves; let some be none"
        yield Problem(service.place("backends"), message)
