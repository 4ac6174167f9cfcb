"""Readers of ports and port ranges."""

from __future__ import annotations

import re

from tula.config.scalars import fault, read_int
from tula.config.shown import shown
from tula.config.tree import Plain
from tula.model.config import PortRange

_EXPECTED = "expected a list of ports such as [80, 443, 8000-8010], or any"
_RANGE = re.compile(r"([0-9]{1,9})-([0-9]{1,9})")


def as_port_list(value: object) -> object:
    """What ``ports`` gives as a list: ``any`` is the empty one, a single port a list of one."""
    if isinstance(value, str):
        return [] if value == "any" else [value]
    if not isinstance(value, list):
        raise fault(f"{_EXPECTED}; got {shown(value)}")
    if not value:
        raise fault(f"{_EXPECTED}; got an empty list")
    return value


def read_ports(value: object) -> PortRange:
    """One port, or a range ``8000-8010``, 1 to 65535."""
    if isinstance(value, PortRange):
        return value
    if not isinstance(value, str):
        raise fault(f"expected a port such as 80 or a range such as 8000-8010; got {shown(value)}")
    if found := _RANGE.fullmatch(value):
        first, last = (_end_of_range(part, value) for part in found.groups())
        if first > last:
            raise fault(f"{value} runs backwards; write {last}-{first}")
        return PortRange(first, last)
    if re.fullmatch(r"[+-]?[0-9]+|0x[0-9a-fA-F]+", value):
        port = read_int(Plain(value), 1, 65535)
        return PortRange(port, port)
    raise fault(_no_port(value))


def _end_of_range(text: str, whole: str) -> int:
    port = read_int(Plain(text), 0, 999999999)
    if not 1 <= port <= 65535:
        raise fault(f"{whole} is out of range; give ports from 1 to 65535")
    return port


def _no_port(text: str) -> str:
    if text == "any":
        return "any stands alone; write ports: any, or take it out of the list"
    if text in ("all", "*"):
        return f"{shown(text)} is no port; write any"
    if len(text) <= 60:
        if found := re.fullmatch(r"([0-9]{1,5}) *(?:-|:|\.\.|–| to ) *([0-9]{1,5})", text):
            return f"{shown(text)} is no port range; write {found[1]}-{found[2]}"
        if re.fullmatch(r"[0-9-]+([, ]+[0-9-]+)+", text):
            return f"{shown(text)} is no port; write a list: [{', '.join(re.split('[, ]+', text))}]"
    return f"{shown(text)} is no port; {_EXPECTED}"
