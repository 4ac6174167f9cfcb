"""Tunnel devices and VXLAN's peers and neighbours, made and removed by rtnetlink."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from typing import Any, Protocol

from pyroute2 import IPRoute
from pyroute2.netlink import genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import AsyncGenericNetlinkSocket, GenericNetlinkSocket

from tula.dataplane.nft.tunnel_devices import (
    ANY_MAC,
    LEAVING,
    TunnelDevice,
    Tunnels,
    VxlanNeighbour,
    VxlanPeer,
)
from tula.dataplane.nft.tunnel_diff import TunnelChange
from tula.kernel.rtnetlink import RtReader
from tula.kernel.tunnel_links import add_request, is_ours, read_device
from tula.model.errors import KernelError

_AF_INET, _AF_INET6 = 2, 10
_PERMANENT = 0x80
_SELF = 0x02
"""NTF_SELF: the device's own table, not a bridge's above it."""
_NO_ADDRESS = 1
"""IN6_ADDR_GEN_MODE_NONE: no link-local address, so no neighbour discovery into the tunnel."""
_PROBE = "tula-probe"
_NO_MTU = 0xFFFFFFFF


class _GenericAsync(AsyncGenericNetlinkSocket):  # type: ignore[misc]
    module_err_level = "debug"  # a kernel without the family is an answer, not an error


class _Generic(GenericNetlinkSocket):  # type: ignore[misc]
    async_class = _GenericAsync


class TunnelAdapter(Protocol):
    """The tunnels of one network namespace; the fake keeps them as values."""

    def missing(self, kinds: Iterable[str]) -> set[str]:
        """Which of these kinds of links the kernel does not have, and cannot load.

        Raises KernelError.
        """

    def observe(self) -> Tunnels:
        """Those that are Tula's. Raises KernelError."""

    def prepare(self, change: TunnelChange, have: Tunnels) -> None:
        """Makes what is added. Raises KernelError, and then everything is as before."""

    def undo(self, change: TunnelChange, have: Tunnels) -> None:
        """Reverts ``prepare``, as far as it got; ``have`` is what was there before."""

    def finish(self, change: TunnelChange) -> None:
        """Removes what goes. Raises KernelError."""


class KernelTunnels:
    """The network namespace that the calling thread is in."""

    def missing(self, kinds: Iterable[str]) -> set[str]:
        with _step("ask for kinds of tunnel devices"), IPRoute() as netlink:
            return {kind for kind in kinds if not _has(netlink, kind)}

    def observe(self) -> Tunnels:
        with _step("read this machine's tunnels"):
            with RtReader() as reader:
                links = reader.links()
            if not any(map(is_ours, links)):
                return Tunnels()
            with IPRoute() as netlink:
                return read_tunnels(netlink, links)

    def prepare(self, change: TunnelChange, have: Tunnels) -> None:
        try:
            with IPRoute() as netlink:
                _remove(netlink, change.first)
                for device in change.add:
                    _add(netlink, device)
                indices = _Indices(netlink)
                for peer in change.add_peers:
                    _peer(netlink, "replace", peer, indices)
                for neighbour in change.add_neighbours:
                    _neighbour(netlink, "replace", neighbour, indices)
        except KernelError:
            self.undo(change, have)
            raise

    def undo(self, change: TunnelChange, have: Tunnels) -> None:
        with IPRoute() as netlink, suppress(KernelError):
            _remove(netlink, [device.name for device in change.add])
            for name in change.first:
                if (old := have.devices.get(name)) is not None and not netlink.link_lookup(
                    ifname=name
                ):
                    _add(netlink, old)
            indices = _Indices(netlink)
            for peer in change.add_peers:
                if peer not in have.peers and peer.device in indices:
                    _peer(netlink, "del", peer, indices)
            for neighbour in change.add_neighbours:
                if neighbour not in have.neighbours and neighbour.device in indices:
                    _neighbour(netlink, "del", neighbour, indices)

    def finish(self, change: TunnelChange) -> None:
        with IPRoute() as netlink:
            indices = _Indices(netlink)
            for neighbour in change.remove_neighbours:
                _neighbour(netlink, "del", neighbour, indices)
            for peer in change.remove_peers:
                _peer(netlink, "del", peer, indices)
            _remove(netlink, change.remove)


def read_tunnels(netlink: Any, links: Iterable[Any]) -> Tunnels:
    """Tula's tunnels among these links of a dump."""
    ours = [link for link in links if is_ours(link)]
    devices = {str(link.get_attr("IFLA_IFNAME")): read_device(link) for link in ours}
    names = {d.index: name for name, d in devices.items() if d is not None and d.kind == "vxlan"}
    peers: set[VxlanPeer] = set()
    neighbours: set[VxlanNeighbour] = set()
    for index, name in names.items():
        for entry in netlink.fdb("dump", ifindex=index):
            mac, remote = entry.get_attr("NDA_LLADDR"), entry.get_attr("NDA_DST")
            if entry["ifindex"] == index and mac and remote:
                peers.add(VxlanPeer(name, mac, ip_address(remote)))
        for family in (_AF_INET, _AF_INET6):
            for entry in netlink.get_neighbours(family, ifindex=index):
                mac, hop = entry.get_attr("NDA_LLADDR"), entry.get_attr("NDA_DST")
                if entry["ifindex"] == index and entry["state"] & _PERMANENT and mac and hop:
                    neighbours.add(VxlanNeighbour(name, ip_address(hop), mac))
    return Tunnels(devices, frozenset(peers), frozenset(neighbours))


class _Indices:
    """Indices of Tula's devices by name, read once."""

    def __init__(self, netlink: Any) -> None:
        self._netlink = netlink
        self._known: dict[str, int] = {}

    def __contains__(self, name: str) -> bool:
        if name not in self._known:
            found = self._netlink.link_lookup(ifname=name)
            if not found:
                return False
            self._known[name] = found[0]
        return True

    def __getitem__(self, name: str) -> int:
        if name not in self:
            raise KernelError(f"the tunnel device {name} is gone; apply again")
        return self._known[name]


def _has(netlink: Any, kind: str) -> bool:
    if kind in ("fou", "fou6"):
        return _has_fou(kind)
    # A request that no kind accepts: a kernel that has the kind refuses the MTU before it makes
    # anything, one without it does not get so far (rtnetlink.c). Either way it loads modules.
    try:
        netlink.link("add", ifname=_PROBE, kind=kind, mtu=_NO_MTU)
    except NetlinkError as error:
        return bool(error.code != errno.EOPNOTSUPP)
    netlink.link("del", index=netlink.link_lookup(ifname=_PROBE)[0])
    return True


def _has_fou(module: str) -> bool:
    """GUE needs modules that are not loaded on demand (Linux 6.1)."""
    path = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
    modprobe = shutil.which("modprobe", path=path)
    if modprobe is not None:
        subprocess.run([modprobe, "-q", module], check=False, stderr=subprocess.DEVNULL)
    # Its family shows it; fou6 has none of its own: making a device fails without it.
    with _Generic() as netlink:
        try:
            netlink.bind("fou", genlmsg)
        except NetlinkError as error:
            return bool(error.code == errno.EPERM)
    return True


def _add(netlink: Any, device: TunnelDevice) -> None:
    with _step(f"make {device.name} ({device.kind} to {device.remote or 'all backends'})"):
        try:
            netlink.link("add", **add_request(device))
        except NetlinkError as error:
            if error.code == errno.EOPNOTSUPP:
                raise KernelError(f"this kernel has no {device.kind} devices") from error
            raise
        gen = {"attrs": [["IFLA_INET6_ADDR_GEN_MODE", _NO_ADDRESS]]}
        with suppress(NetlinkError):  # IPv6 may be off
            netlink.link("set", index=device.index, IFLA_AF_SPEC={"attrs": [["AF_INET6", gen]]})
        netlink.link("set", index=device.index, state="up")


def _remove(netlink: Any, names: Iterable[str]) -> None:
    """Removes those of these devices that are there and Tula's, all at once."""
    with _step("remove tunnel devices"):
        leaving = [
            index
            for name in names
            for index in netlink.link_lookup(ifname=name)
            if is_ours(netlink.link("get", index=index)[0])
        ]
        for index in leaving:
            netlink.link("set", index=index, group=LEAVING)
        if leaving:
            netlink.link("del", group=LEAVING)


def _peer(netlink: Any, verb: str, peer: VxlanPeer, indices: _Indices) -> None:
    with _step(f"{verb} the peer {peer.remote} on {peer.device}", verb):
        # Several remotes of one MAC: the first copy would be replaced by the next.
        again = verb == "replace" and peer.mac == ANY_MAC
        netlink.fdb(
            "append" if again else verb,
            ifindex=indices[peer.device],
            lladdr=peer.mac,
            dst=str(peer.remote),
            flags=_SELF,
            state=_PERMANENT,
        )


def _neighbour(netlink: Any, verb: str, neighbour: VxlanNeighbour, indices: _Indices) -> None:
    with _step(f"{verb} the neighbour {neighbour.hop} on {neighbour.device}", verb):
        netlink.neigh(
            verb,
            ifindex=indices[neighbour.device],
            dst=str(neighbour.hop),
            lladdr=neighbour.mac,
            state="permanent",
        )


@contextmanager
def _step(what: str, verb: str = "") -> Iterator[None]:
    try:
        yield
    except NetlinkError as error:
        if verb == "del" and error.code in (errno.ENOENT, errno.ENODEV):
            return
        raise KernelError(f"cannot {what}: {os.strerror(error.code)}") from error
    except OSError as error:
        raise KernelError(f"cannot {what}: {error.strerror}") from error
