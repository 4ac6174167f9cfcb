"""How much a document may amount to, once its services have what defaults give them.

Defaults multiply: a document of some megabytes can give each of a hundred thousand services ten
thousand ports. These limits come before every rule that goes through such lists.
"""

from __future__ import annotations

from collections.abc import Iterator

from tula.config.merged import Merged
from tula.model.problem import Problem

MAX_MATCHES = 1_000_000
"""VIPs times protocols times ports and ranges, of all services: each is an entry in the kernel."""

MAX_BACKENDS = 1_000_000
"""Backends of all services, those that defaults give counted for each."""


def size_problems(services: list[Merged]) -> Iterator[Problem]:
    """What is too much of the whole document; at most one problem of each kind."""
    keys = [service.keys for service in services]
    matches = sum(len(k.vip) * len(k.protocol) * max(1, len(k.ports)) for k in keys)
    if matches > MAX_MATCHES:
        message = f"{matches:,} combinations of VIP, protocol and port; at most {MAX_MATCHES:,}"
        yield Problem(("services",), f"{message}: give ranges in place of ports", on_key=True)
    backends = sum(len(k.backends) for k in keys)
    if backends > MAX_BACKENDS:
        message = f"{backends:,} backends of all services; at most {MAX_BACKENDS:,}"
        yield Problem(("services",), message, on_key=True)
