"""Services that nothing checks: a backend that fails there goes on getting its share. Pure."""

from __future__ import annotations

from tula.model.config import Config
from tula.model.wording import named

FIX = "give health, such as health: {type: tcp}"


def unchecked_services(config: Config) -> tuple[str, ...]:
    """The names of the services that have backends and no health check."""
    return tuple(s.name for s in config.services if s.backends and not s.health)


def describe_unchecked(config: Config) -> str:
    """One line for all of them; empty if there are none."""
    names = unchecked_services(config)
    if not names:
        return ""
    which = f"{named(names)} {'has' if len(names) == 1 else 'have'} no health checks"
    return f"{which}: a backend that fails goes on getting its share of new connections"
