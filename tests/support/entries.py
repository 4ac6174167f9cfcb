"""The flow tables' elements, as nft lists them."""

from __future__ import annotations

import re
from typing import NamedTuple

from tula.lab import Host

_ELEMENT = re.compile(r"0x([0-9a-f]+) \. 0x([0-9a-f]+) .*?expires (\S+) : 0x([0-9a-f]+)")
_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}


class Held4(NamedTuple):
    """What a table of IPv4 flows holds for one client port."""

    backend: int
    seconds: float


def entries4(balancer: Host, kind: str) -> dict[int, Held4]:
    """A small table of IPv4 flows by the client's port: the backend's number and the time left."""
    listed = balancer.run(["nft", "list", "table", "netdev", "tula"]).stdout
    start = listed.index(f"\tmap {kind}_")
    text = listed[start : listed.index("\n\t}\n", start)]
    return {
        int(port, 16): Held4(int(mark, 16) & 0xFFFF, _seconds(life))
        for _, port, life, mark in _ELEMENT.findall(text)
    }


def _seconds(text: str) -> float:
    """nft's time, such as 1h59m59s988ms."""
    return sum(float(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)(ms|[dhms])", text))
