"""Whom a service's lists do not admit, and what is hardly meant about them. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from tula.model.admission import Refusal
from tula.model.config import Config, IPAddress, VirtualService
from tula.model.wording import named


def refused(service: VirtualService, client: IPAddress) -> str:
    """Why a client may not connect, and what becomes of its packets; empty for one that may."""
    admission = service.admission
    if admission is None:
        return ""
    end = "dropped" if admission.refusal is Refusal.DROP else "reset"
    denied = admission.deny.find(client)
    if denied is not None:
        return f"{client} is denied by deny {denied}: {end}"
    if admission.allow is not None and admission.allow.find(client) is None:
        return f"{client} is not in allow: {end}"
    return ""


def describe_shut(config: Config) -> Iterator[str]:
    """A line for each IP version whose clients no list admits, though services have VIPs of it."""
    for version in (4, 6):
        shut = [
            service.name
            for service in config.services
            if service.allow and version in service.versions and not service.allow.keys(version)
        ]
        if shut:
            has = "has" if len(shut) == 1 else "have"
            yield (
                f"{named(shut)} {has} VIPs of IPv{version} and no IPv{version} prefix in allow: "
                f"nobody may connect there; list {'0.0.0.0/0' if version == 4 else '::/0'} for all"
            )
