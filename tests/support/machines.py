"""All that a machine of the lab is, to be compared before and after."""

from __future__ import annotations

import socket

from support.snapshots import snapshot, sysctls
from tula.lab import Host, wait_until


def machine(host: Host) -> dict[str, object]:
    """All that a machine is, as far as joining could change it."""
    # A link has its own address a moment after its carrier: later than the first look, at times.
    wait_until(lambda: _has_link_local(host), what=f"{host.name}'s link-local address")
    return {**snapshot(host), "sysctls": sysctls(host)}


def _has_link_local(host: Host) -> bool:
    with host.netlink() as netlink:
        index = netlink.link_lookup(ifname="eth0")[0]
        found = netlink.get_addr(family=socket.AF_INET6, index=index)
        return any(entry.get("address").startswith("fe80:") for entry in found)


def differences(one: dict[str, object], other: dict[str, object]) -> dict[str, object]:
    """What is not the same, for a failure that can be read."""
    found: dict[str, object] = {}
    for name, value in one.items():
        now = other[name]
        if isinstance(value, dict) and isinstance(now, dict):
            keys = value.keys() | now.keys()
            found |= {k: (value.get(k), now.get(k)) for k in keys if value.get(k) != now.get(k)}
        elif value != now:
            found[name] = (value, now)
    return found
