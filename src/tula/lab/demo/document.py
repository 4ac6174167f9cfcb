"""The demo's tula.yaml, in the three forms that it takes."""

from __future__ import annotations

from collections.abc import Mapping

from tula.lab.topologies import VIP4, VIP6

FULL_WEIGHT = 100


def render_document(weights: Mapping[str, int]) -> str:
    """The document with these backends, such as ``{"backend-1": 100, "backend-2": 0}``."""
    lines = [
        "interfaces: [eth0]                  # where requests arrive",
        "services:",
        "  web:",
        f'    vip: [{VIP4}, "{VIP6}"]  # the address that clients know',
        "    protocol: [tcp, udp]",
        "    ports: [80]",
        "    forwarding: l2                  # by MAC address",
        "    backends:",
    ]
    for name, weight in weights.items():
        number = 10 + int(name.rpartition("-")[2])
        special = "" if weight == FULL_WEIGHT else f", weight: {weight}"
        lines.append(f'      {name}: {{address: [10.9.0.{number}, "fd09::{number}"]{special}}}')
    return "\n".join(lines) + "\n"
