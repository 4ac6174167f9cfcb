"""What a change would take out of service, so much that somebody is asked first."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from tula.model.config import Config
from tula.model.health import BackendName, BackendStatus
from tula.model.wording import counted, named

LEAST_SERVICES = 5
"""Fewer services than these may go without a question."""

Statuses = Mapping[BackendName, BackendStatus]


def describe_losses(
    before: Config, statuses_before: Statuses, after: Config, statuses_after: Statuses
) -> tuple[str, ...]:
    """A line for each thing that nobody should lose by a slip, such as a file that was saved half.

    More than half of the services, if these are five or more; and the last backend that serves, of
    a service that stays.
    """
    return (
        *_services(before, after),
        *_backends(before, statuses_before, after, statuses_after),
    )


def describe_override_losses(config: Config, before: Statuses, after: Statuses) -> tuple[str, ...]:
    """The same for an operator's override of backends."""
    return tuple(_backends(config, before, config, after))


def _services(before: Config, after: Config) -> Iterator[str]:
    stay = {service.name for service in after.services}
    gone = [service.name for service in before.services if service.name not in stay]
    if len(gone) >= LEAST_SERVICES and 2 * len(gone) > len(before.services):
        yield (
            f"this takes away {len(gone)} of {counted(len(before.services), 'service')}: "
            f"{named(gone)}"
        )


def _backends(
    before: Config, statuses_before: Statuses, after: Config, statuses_after: Statuses
) -> Iterator[str]:
    left = _serving(after, statuses_after)
    had = _serving(before, statuses_before)
    gone = [name for name in left if had.get(name) and not left[name]]
    if len(gone) == 1:
        yield f"this leaves service {gone[0]} without a backend that takes new connections"
    elif gone:
        yield (
            f"this leaves {counted(len(gone), 'service')} without a backend that takes new "
            f"connections: {named(gone)}"
        )


def _serving(config: Config, statuses: Statuses) -> dict[str, int]:
    """How many backends of each service get new connections."""
    return {
        service.name: sum(
            1
            for backend in service.backends
            if (status := statuses.get((service.name, backend.name))) is not None
            and status.present
            and status.weight > 0
        )
        for service in config.services
    }
