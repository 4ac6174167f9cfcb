"""A switch: a namespace with nothing but a bridge and its ports."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pyroute2 import IPRoute

from tula.lab.guard import LabError
from tula.lab.namespace import Namespace

BRIDGE = "br0"
_LOWER_UP = 0x10000
_DISABLED, _FORWARDING = 0, 3
"""A bridge port's BR_STATE_*."""

_FIRST_PORT = 1000
"""Ports' interface indexes start far from those of hosts: a veth whose index is its peer's looks
to the kernel like a device without a lower one, and its carrier is then reported a second late."""


class Switch:
    """An Ethernet switch without spanning tree and without multicast snooping.

    With ``hub=True`` it learns nothing: every frame goes to every port, as on a hub or on a
    switch that has forgotten a MAC (unknown-unicast flooding).
    """

    def __init__(self, name: str, namespace: Namespace, hub: bool = False, mtu: int = 1500) -> None:
        """``Lab.switch`` creates it."""
        self.name = name
        self.namespace = namespace
        self.hub = hub
        self.mtu = mtu
        self._made = 0

    @contextmanager
    def netlink(self) -> Iterator[Any]:
        """An rtnetlink socket inside the switch."""
        with self.namespace.enter(), IPRoute() as socket:
            yield socket

    def build(self) -> None:
        """Create the bridge; the switch itself has no address and sends nothing."""
        with self.namespace.enter():
            for scope in ("all", "default"):
                with open(f"/proc/sys/net/ipv6/conf/{scope}/disable_ipv6", "w") as file:  # noqa: PTH123
                    file.write("1")
            # br_netfilter, where it is loaded, would drop packets with broken IP headers.
            for name in ("bridge-nf-call-iptables", "bridge-nf-call-ip6tables"):
                path = Path("/proc/sys/net/bridge") / name
                if path.exists():
                    path.write_text("0")
        with self.netlink() as socket:
            socket.link(
                "add",
                ifname=BRIDGE,
                kind="bridge",
                br_stp_state=0,
                br_mcast_snooping=0,
                state="up",
            )

    def plug(
        self,
        namespace: Namespace,
        ifname: str,
        port: str,
        mac: str,
        index: int | None = None,
    ) -> None:
        """Plug a cable in: a veth pair from a port of the switch to ``namespace``."""
        self._made += 1
        peer: dict[str, Any] = {
            "ifname": ifname,
            "address": mac,
            "net_ns_fd": namespace.fileno(),
            "mtu": self.mtu,
        }
        if index is not None:
            peer["index"] = index
        with self.netlink() as socket:
            bridge = socket.link_lookup(ifname=BRIDGE)[0]
            if socket.link_lookup(ifname=port):
                raise LabError(f"{self.name} already has a port {port}")
            socket.link(
                "add",
                ifname=port,
                kind="veth",
                index=_FIRST_PORT + self._made,
                mtu=self.mtu,
                peer=peer,
            )
            socket.link("set", index=_FIRST_PORT + self._made, master=bridge, state="up")
            if self.hub:
                socket.brport("set", index=_FIRST_PORT + self._made, learning=0)

    def set_port(self, port: str, up: bool) -> None:
        """Unplug the cable, or plug it back in: the host sees the carrier change."""
        with self.netlink() as socket:
            socket.link("set", index=self._index(socket, port), state="up" if up else "down")

    def set_silent(self, port: str, silent: bool) -> None:
        """Pass no frame through this port, either way, or do again; the carrier stays.

        What a switch with a stuck port does, or one whose spanning tree blocks it: neither end
        is told. The MACs learned there stay, so what is for them goes nowhere.
        """
        state = str(_DISABLED if silent else _FORWARDING)
        # Not by pyroute2: there, state is the link's.
        command = ["bridge", "link", "set", "dev", port, "state", state]
        with self.namespace.enter():
            done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise LabError(f"{self.name} {port}: {done.stderr.strip()}")

    def set_mtu(self, mtu: int) -> None:
        """Forward frames up to this size; the hosts' own MTUs stay."""
        with self.netlink() as socket:
            for port in self.ports():
                socket.link("set", index=self._index(socket, port), mtu=mtu)

    def unplug(self, port: str) -> None:
        """Remove the cable: the interface at the other end is gone too."""
        with self.netlink() as socket:
            socket.link("del", index=self._index(socket, port))

    def forget(self) -> None:
        """Drop every learned MAC: the next frame to each host is flooded."""
        with self.netlink() as socket:
            bridge = socket.link_lookup(ifname=BRIDGE)[0]
            socket.link("set", index=bridge, kind="bridge", br_fdb_flush=True)

    def ports(self) -> list[str]:
        """Names of the ports, in the order of their plugging: ``HOST.IFNAME``."""
        with self.netlink() as socket:
            links = [link for link in socket.get_links() if link["index"] > _FIRST_PORT]
            return [link.get("ifname") for link in sorted(links, key=lambda link: link["index"])]

    def forwarding(self) -> bool:
        """Whether every port that has a carrier forwards frames."""
        with self.netlink() as socket:
            for link in socket.get_links():
                if link["index"] > _FIRST_PORT and link["flags"] & _LOWER_UP:
                    state = link.get(("linkinfo", "slave_data", "state"))
                    if state not in (_FORWARDING, _DISABLED):  # disabled: made silent
                        return False
        return True

    def _index(self, socket: Any, port: str) -> int:
        found = socket.link_lookup(ifname=port)
        if not found:
            raise LabError(f"{self.name} has no port {port}")
        return int(found[0])
