"""How plan and apply show the tunnels of a change."""

from __future__ import annotations

from typing import Any

from tula.engine.change import Change
from tula.model.tunnel import TunnelDevice

_MANY = 20
"""More ends of a VXLAN device than these are told as their number."""


def tunnel_steps(change: Change, before: bool) -> list[dict[str, Any]]:
    """The steps before the rules change, or those after them."""
    tunnels = change.tunnels
    fresh = {device.name: device for device in tunnels.add}
    if before:
        again = [name for name in tunnels.first if name in fresh]
        gone = [name for name in tunnels.first if name not in fresh]
        steps = [_device("remove", name, change.devices.get(name)) for name in gone]
        steps += [
            _device("change" if name in again else "add", name, device)
            for name, device in fresh.items()
        ]
        peers = {(peer.device, str(peer.remote)) for peer in tunnels.add_peers}
        macs = {(peer.device, peer.mac) for peer in tunnels.add_peers}
        rest = [n for n in tunnels.add_neighbours if (n.device, n.mac) not in macs]
        return steps + _ends("add", peers | {(n.device, str(n.hop)) for n in rest})
    steps = _ends("remove", {(peer.device, str(peer.remote)) for peer in tunnels.remove_peers})
    return steps + [_device("remove", name, change.devices.get(name)) for name in tunnels.remove]


def _ends(verb: str, ends: set[tuple[str, str]]) -> list[dict[str, Any]]:
    if len(ends) > _MANY:
        devices = sorted({device for device, _ in ends})
        return [_step(verb, "tunnel ends", str(len(ends)), f"on {', '.join(devices)}")]
    return [_step(verb, "tunnel end", end, f"on {device}") for device, end in sorted(ends)]


def _device(verb: str, name: str, device: TunnelDevice | None) -> dict[str, Any]:
    if device is None:
        return _step(verb, "tunnel", name, "")
    kind = f"{device.kind} in gue" if device.gue_port else device.kind
    to = f"{device.local} to {device.remote}" if device.remote else f"id {device.vni}"
    return _step(verb, "tunnel", name, f"{kind}, {to}, mtu {device.mtu}")


def _step(verb: str, what: str, name: str, detail: str) -> dict[str, Any]:
    return {"verb": verb, "what": what, "name": name, "detail": detail}
