"""All that a machine of the lab is, to be compared before and after."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import ndiff

from support.snapshots import snapshot, sysctls
from tula.lab import Host


def machine(host: Host) -> dict[str, object]:
    """All that a machine is, as far as joining could change it."""
    return {**snapshot(host), "sysctls": sysctls(host)}


def differences(one: Mapping[str, object], other: Mapping[str, object]) -> dict[str, object]:
    """What is not the same, for a failure that can be read: of texts the lines."""
    found: dict[str, object] = {}
    for name, value in one.items():
        now = other[name]
        if isinstance(value, dict) and isinstance(now, dict):
            keys = value.keys() | now.keys()
            found |= {k: (value.get(k), now.get(k)) for k in keys if value.get(k) != now.get(k)}
        elif isinstance(value, str) and isinstance(now, str) and value != now:
            lines = ndiff(value.splitlines(), now.splitlines())
            found[name] = [line for line in lines if line[0] in "+-"]
        elif value != now:
            found[name] = (value, now)
    return found
