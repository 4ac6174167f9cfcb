"""The demo's tula.yaml, in the forms that it takes."""

from __future__ import annotations

from collections.abc import Mapping

from tula.lab.topologies import VIP4, VIP6

FULL_WEIGHT = 100
FAR_VIPS = ("10.9.0.101", "fd09::101")
FAR = {"far-1": "10.7.0.11", "far-2": "10.7.0.12"}
"""Backends behind the router, and where their tunnels end."""


def render_document(weights: Mapping[str, int], tunnel: str = "") -> str:
    """The document with these backends, such as ``{"backend-1": 100, "backend-2": 0}``; with a
    ``tunnel`` also the service that is served behind the router."""
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
    if tunnel:
        vips = f'{FAR_VIPS[0]}, "{FAR_VIPS[1]}"'
        lines += [
            "  films:",
            f"    vip: [{vips}]  # another address",
            "    protocol: [tcp, udp]",
            "    ports: [80]",
            "    forwarding: l3                  # inside another packet",
            f"    tunnel: {tunnel}",
            "    backends:",
        ]
        lines += [f"      {name}: {{address: {address}}}" for name, address in FAR.items()]
    return "\n".join(lines) + "\n"
