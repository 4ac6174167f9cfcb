"""The tunnels of a change, for people."""

from __future__ import annotations

from collections.abc import Mapping

from tula.dataplane.nft.tunnel_devices import TunnelDevice
from tula.dataplane.nft.tunnel_diff import TunnelChange
from tula.dataplane.port import ChangeStep

_MANY = 20
"""More endpoints of a VXLAN device than these are told as their number."""


Devices = Mapping[str, TunnelDevice | None]
"""Tula's tunnel devices, those before a change and those after it."""


def tunnel_steps(tunnels: TunnelChange, devices: Devices, *, before: bool) -> list[ChangeStep]:
    """The steps before the rules change, or those after them."""
    fresh = {device.name: device for device in tunnels.add}
    if before:
        again = [name for name in tunnels.first if name in fresh]
        gone = [name for name in tunnels.first if name not in fresh]
        steps = [_device("remove", name, devices.get(name)) for name in gone]
        steps += [
            _device("change" if name in again else "add", name, device)
            for name, device in fresh.items()
        ]
        peers = {(peer.device, str(peer.remote)) for peer in tunnels.add_peers}
        macs = {(peer.device, peer.mac) for peer in tunnels.add_peers}
        rest = [n for n in tunnels.add_neighbours if (n.device, n.mac) not in macs]
        return steps + _endpoints("add", peers | {(n.device, str(n.hop)) for n in rest})
    steps = _endpoints("remove", {(peer.device, str(peer.remote)) for peer in tunnels.remove_peers})
    return steps + [_device("remove", name, devices.get(name)) for name in tunnels.remove]


def _endpoints(verb: str, found: set[tuple[str, str]]) -> list[ChangeStep]:
    if len(found) > _MANY:
        devices = sorted({device for device, _ in found})
        return [ChangeStep(verb, "tunnel endpoints", str(len(found)), f"on {', '.join(devices)}")]
    return [
        ChangeStep(verb, "tunnel endpoint", address, f"on {device}")
        for device, address in sorted(found)
    ]


def _device(verb: str, name: str, device: TunnelDevice | None) -> ChangeStep:
    if device is None:
        return ChangeStep(verb, "tunnel", name)
    kind = f"{device.kind} in gue" if device.gue_port else device.kind
    to = f"{device.local} to {device.remote}" if device.remote else f"id {device.vni}"
    return ChangeStep(verb, "tunnel", name, f"{kind}, {to}, mtu {device.mtu}")
