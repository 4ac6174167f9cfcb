"""From the tunnels that are there to those that must be, in two parts around the transaction."""

from __future__ import annotations

from dataclasses import dataclass

from tula.dataplane.nft.tunnel_devices import TunnelDevice, Tunnels, VxlanNeighbour, VxlanPeer


@dataclass(frozen=True, slots=True)
class TunnelChange:
    """What is made before the rules change, and what goes afterwards.

    ``first``: names of devices that stand where one of ``add`` must be. Their backends' packets
    are dropped until it is there; nobody else's.
    """

    first: tuple[str, ...] = ()
    add: tuple[TunnelDevice, ...] = ()
    add_peers: tuple[VxlanPeer, ...] = ()
    add_neighbours: tuple[VxlanNeighbour, ...] = ()
    remove_neighbours: tuple[VxlanNeighbour, ...] = ()
    remove_peers: tuple[VxlanPeer, ...] = ()
    remove: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return any(
            (
                *(self.first, self.add, self.add_peers, self.add_neighbours),
                *(self.remove_neighbours, self.remove_peers, self.remove),
            )
        )


def diff_tunnels(have: Tunnels, want: Tunnels) -> TunnelChange:
    """The steps from ``have`` to ``want``; nothing for what is as it must be."""
    wanted = {name: device for name, device in want.devices.items() if device is not None}
    add = [device for name, device in wanted.items() if have.devices.get(name) != device]
    places = {device.place for device in add}
    gone = [name for name in have.devices if name not in wanted]
    # A changed device is made again: its name must be free, and its place.
    first = [device.name for device in add if device.name in have.devices]
    first += [name for name in gone if (old := have.devices[name]) and old.place in places]
    fresh = {device.name for device in add}
    # What a device knew goes with it: ends of a device that is made again are all new.
    add_peers = [p for p in want.peers if p not in have.peers or p.device in fresh]
    add_neighbours = [n for n in want.neighbours if n not in have.neighbours or n.device in fresh]
    staying = wanted.keys() - fresh
    replaced = {(n.device, n.hop) for n in want.neighbours}
    return TunnelChange(
        first=tuple(sorted(first)),
        add=tuple(sorted(add, key=lambda device: device.name)),
        add_peers=tuple(sorted(add_peers, key=repr)),
        add_neighbours=tuple(sorted(add_neighbours, key=repr)),
        remove_neighbours=tuple(
            n
            for n in sorted(have.neighbours - want.neighbours, key=repr)
            if n.device in staying and (n.device, n.hop) not in replaced
        ),
        remove_peers=tuple(
            p for p in sorted(have.peers - want.peers, key=repr) if p.device in staying
        ),
        remove=tuple(sorted(set(gone) - set(first))),
    )
