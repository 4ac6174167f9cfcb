"""Client persistence: a client's connections go to one backend for as long as it is remembered."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from tula.model.setting import Duration, Form, Integer, Setting


class ClientsOfDrained(StrEnum):
    """What becomes of the remembered clients of a backend that drains."""

    KEEP = "keep"
    RELEASE = "release"


SCOPE_SERVICE = "service"
SCOPE_VIP = "vip"


@dataclass(frozen=True, slots=True)
class Persistence:
    """Client persistence. Times in seconds.

    Clients are told apart by the first ``prefix`` bits of their IPv4 address, or ``prefix6`` of
    their IPv6 address. ``scope`` is SCOPE_SERVICE, SCOPE_VIP or a name that several services give:
    these then choose one backend for a client.
    """

    timeout: Annotated[
        float,
        Setting(
            "How long a client is remembered that has no connection.",
            Duration(),
            example="such as timeout: 5m",
        ),
    ]
    prefix: Annotated[
        int, Setting("Bits of an IPv4 address that tell clients apart.", Integer(1, 32))
    ] = 32
    prefix6: Annotated[
        int, Setting("Bits of an IPv6 address that tell clients apart.", Integer(1, 128))
    ] = 128
    scope: Annotated[
        str,
        Setting(
            "service: each service for itself; vip: all services of the VIP together; or a name: "
            "all services that give it.",
            Form.NAME,
        ),
    ] = SCOPE_SERVICE
    drain: Annotated[
        ClientsOfDrained,
        Setting("Whether a backend that drains keeps the clients that it has: keep or release."),
    ] = ClientsOfDrained.KEEP

    def bits(self, version: int) -> int:
        """The prefix length for clients of IP version 4 or 6."""
        return self.prefix if version == 4 else self.prefix6
