"""A host's interfaces, addresses and routes, by rtnetlink inside its namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from ipaddress import ip_address, ip_interface
from typing import Any, NamedTuple

from pyroute2 import IPRoute

from tula.lab.guard import LabError
from tula.lab.namespace import Namespace
from tula.lab.switch import Switch

NODAD = 0x02
"""IFA_F_NODAD: an IPv6 address is usable at once."""
_PROMISC = 0x100
_LOWER_UP = 0x10000


class Counters(NamedTuple):
    """What an interface has received and sent."""

    rx_packets: int
    tx_packets: int
    rx_bytes: int
    tx_bytes: int
    rx_dropped: int
    tx_dropped: int

    def __sub__(self, before: Counters) -> Counters:
        """What passed since ``before``."""
        return Counters(*(now - then for now, then in zip(self, before, strict=True)))


class Interfaces:
    """The network side of a host; ``Host`` adds programs and sockets."""

    def __init__(self, name: str, namespace: Namespace) -> None:
        """``namespace`` must not be the machine's own (see ``Namespace``)."""
        self.name = name
        self.namespace = namespace
        self._cables: dict[str, tuple[Switch, str]] = {}
        self._cards: dict[str, tuple[Switch, tuple[str, ...], str]] = {}
        self._routes: list[tuple[str, str | None, str | None]] = []

    def enter(self) -> AbstractContextManager[None]:
        """Put the calling thread inside for a ``with`` block; see ``Namespace.enter``."""
        return self.namespace.enter()

    @contextmanager
    def netlink(self) -> Iterator[Any]:
        """A pyroute2 ``IPRoute`` inside the host; the thread is inside for the block too.

        (pyroute2 opens further sockets lazily, in the namespace where the thread is then.)
        """
        with self.enter(), IPRoute() as socket:
            yield socket

    def add_interface(
        self,
        switch: Switch,
        *addresses: str,
        ifname: str = "eth0",
        mac: str,
    ) -> None:
        """Plug a new interface into a switch, with these addresses, up."""
        port = f"{self.name}.{ifname}"
        if len(port) > 15:
            port = f"{self.name[: 14 - len(ifname)]}.{ifname}"
        switch.plug(self.namespace, ifname, port, mac)
        self._cables[ifname] = (switch, port)
        self._cards[ifname] = (switch, addresses, mac)
        with self.netlink() as socket:
            index = _index(socket, self.name, ifname)
            socket.link("set", index=index, state="up")
            for address in addresses:
                _add_address(socket, index, address)

    def remove_interface(self, ifname: str = "eth0") -> None:
        """Take the network card out: its addresses and routes go with it."""
        self._cables.pop(ifname, None)
        self._cards.pop(ifname, None)
        with self.netlink() as socket:
            socket.link("del", index=_index(socket, self.name, ifname))

    def set_cable(self, ifname: str, plugged: bool) -> None:
        """Pull the cable at the switch's end (the carrier is lost), or put it back."""
        switch, port = self._cables[ifname]
        switch.set_port(port, plugged)

    def set_silent(self, ifname: str, silent: bool = True) -> None:
        """Have the switch's port pass nothing, with the carrier as it is; or pass all again."""
        switch, port = self._cables[ifname]
        switch.set_silent(port, silent)

    def set_link(self, ifname: str, up: bool) -> None:
        """``ip link set IFNAME up`` or ``down``; down loses IPv6 addresses and routes."""
        with self.netlink() as socket:
            index = _index(socket, self.name, ifname)
            socket.link("set", index=index, state="up" if up else "down")

    def set_mtu(self, ifname: str, mtu: int) -> None:
        """``ip link set IFNAME mtu MTU``; larger than the switch's it is of no use."""
        with self.netlink() as socket:
            socket.link("set", index=_index(socket, self.name, ifname), mtu=mtu)

    def set_mac(self, ifname: str, mac: str) -> None:
        """Give the interface another MAC, as a replaced card has; addresses stay."""
        with self.netlink() as socket:
            socket.link("set", index=_index(socket, self.name, ifname), address=mac)

    def set_promiscuous(self, ifname: str, on: bool = True) -> None:
        """Take every frame, whomever it is for."""
        with self.netlink() as socket:
            flags = _PROMISC if on else 0
            index = _index(socket, self.name, ifname)
            socket.link("set", index=index, flags=flags, change=_PROMISC)

    def add_address(self, ifname: str, *addresses: str) -> None:
        """Addresses with their prefix length; IPv6 ones are usable at once."""
        with self.netlink() as socket:
            index = _index(socket, self.name, ifname)
            for address in addresses:
                _add_address(socket, index, address)

    def remove_address(self, ifname: str, *addresses: str) -> None:
        """The reverse."""
        with self.netlink() as socket:
            index = _index(socket, self.name, ifname)
            for address in addresses:
                parsed = ip_interface(address)
                socket.addr(
                    "del", index=index, address=str(parsed.ip), prefixlen=parsed.network.prefixlen
                )

    def add_route(self, to: str, via: str | None = None, ifname: str | None = None) -> None:
        """A route to a prefix or ``default``; the family of ``default`` is that of ``via``."""
        self._routes.append((to, via, ifname))
        with self.netlink() as socket:
            if to == "default":
                to = "::/0" if via is not None and ":" in via else "0.0.0.0/0"
            fields: dict[str, Any] = {"dst": to}
            if via is not None:
                fields["gateway"] = via
            if ifname is not None:
                fields["oif"] = _index(socket, self.name, ifname)
            socket.route("replace", **fields)

    def unplug(self) -> None:
        """Remove all interfaces, from the switches' end."""
        for switch, port in self._cables.values():
            switch.unplug(port)
        self._cables.clear()

    def configure(self) -> None:
        """What a boot does: the interfaces, with the addresses that they came with, and routes."""
        for ifname, (switch, addresses, mac) in list(self._cards.items()):
            self.add_interface(switch, *addresses, ifname=ifname, mac=mac)
        routes, self._routes = self._routes, []
        for route in routes:
            self.add_route(*route)

    def card(self, ifname: str = "eth0") -> tuple[tuple[str, ...], str]:
        """The addresses without prefix length that the interface came with, and its MAC then:
        known of a machine without power too."""
        _, addresses, mac = self._cards[ifname]
        return tuple(address.partition("/")[0] for address in addresses), mac

    def addresses(self, ifname: str | None = None) -> list[str]:
        """Addresses without prefix length, of one interface or of all, but 127.0.0.1, ::1 and
        link-local ones; those for the machine's own traffic first, VIPs of scope host last.
        """
        with self.netlink() as socket:
            index = None if ifname is None else _index(socket, self.name, ifname)
            found = [
                str(entry.get("local") or entry.get("address"))
                for entry in sorted(socket.get_addr(), key=lambda entry: entry["scope"])
                if index is None or entry["index"] == index
            ]
        kept = (a for a in found if not (ip_address(a).is_loopback or ip_address(a).is_link_local))
        return list(dict.fromkeys(kept))

    def interfaces(self) -> list[str]:
        """Names of the interfaces, lo first."""
        with self.netlink() as socket:
            return [link.get("ifname") for link in socket.get_links()]

    def mac(self, ifname: str = "eth0") -> str:
        """The interface's MAC now."""
        return str(self._link(ifname).get("address"))

    def index(self, ifname: str = "eth0") -> int:
        """The interface's index now."""
        return int(self._link(ifname)["index"])

    def carrier(self, ifname: str = "eth0") -> bool:
        """Whether the cable is in and the other end is up."""
        return bool(self._link(ifname)["flags"] & _LOWER_UP)

    def counters(self, ifname: str = "eth0") -> Counters:
        """What the kernel has counted on the interface (IFLA_STATS64)."""
        stats = self._link(ifname).get("stats64")
        return Counters(*(int(stats[field]) for field in Counters._fields))

    def _link(self, ifname: str) -> Any:
        with self.netlink() as socket:
            return socket.get_links(_index(socket, self.name, ifname))[0]


def _index(socket: Any, host: str, ifname: str) -> int:
    found = socket.link_lookup(ifname=ifname)
    if not found:
        raise LabError(f"{host} has no interface {ifname}")
    return int(found[0])


def _add_address(socket: Any, index: int, address: str) -> None:
    parsed = ip_interface(address)
    fields: dict[str, Any] = {
        "index": index,
        "address": str(parsed.ip),
        "prefixlen": parsed.network.prefixlen,
    }
    if parsed.version == 6:
        fields["flags"] = NODAD
    socket.addr("add", **fields)
