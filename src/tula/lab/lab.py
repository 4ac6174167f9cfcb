"""The lab: creates switches and hosts, and removes them."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from tula.lab.guard import LabError, require_root
from tula.lab.host import Host, quiet
from tula.lab.kept import claim, record_namespace, remove_named
from tula.lab.namespace import Namespace, withdraw
from tula.lab.process import Spawner
from tula.lab.strays import Strays
from tula.lab.switch import Switch
from tula.lab.wait import wait_until

_PREFIX = "tula-lab-"
_SETTLE = 60.0
"""Seconds within which a new state directory may not have its lock yet."""


class Lab:
    """A network of namespaces; a context manager that cleans up after itself.

    ::

        with Lab() as lab:
            lan = lab.switch()
            lb = lab.host("lb", lan, "10.9.0.2/24", "fd09::2/64")
            client = lab.host("client", lan, "10.9.0.9/24", "fd09::9/64")
            client.run(["ping", "-c1", "10.9.0.2"])

    Namespaces are anonymous: they vanish with this process, even when it is killed. With
    ``named="PREFIX"`` each is also bound to ``/run/netns/PREFIX-HOST``, where ``ip netns exec``
    finds it; with ``keep=True`` too, names and programs stay until ``remove_named(PREFIX)``.
    """

    def __init__(self, named: str | None = None, keep: bool = False) -> None:
        """Creates nothing yet; entering it does."""
        if keep and named is None:
            raise LabError("only a named lab can be kept")
        self.named = named
        self.keep = keep
        self.hosts: dict[str, Host] = {}
        self.switches: dict[str, Switch] = {}
        self._stack = ExitStack()
        self._macs = 0

    def __enter__(self) -> Self:
        require_root()
        with ExitStack() as stack:
            self._directory = self._make_directory(stack)
            self.strays = Strays(self._directory)
            if not self.keep:
                stack.callback(self.strays.close)
            self._spawner = Spawner(keep=self._directory if self.keep else None)
            stack.callback(self._spawner.close)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stack.__exit__(kind, value, traceback)
        if self.keep and self.named is not None and value is not None:
            remove_named(self.named)  # no use keeping half a network

    def __getitem__(self, name: str) -> Host:
        try:
            return self.hosts[name]
        except KeyError:
            raise LabError(f"no host {name}; the lab has: {', '.join(self.hosts)}") from None

    def switch(self, name: str = "switch", hub: bool = False, mtu: int = 1500) -> Switch:
        """A new switch; see ``Switch``."""
        switch = Switch(name, self._namespace(name), hub=hub, mtu=mtu)
        switch.build()
        self.switches[name] = switch
        return switch

    def host(
        self,
        name: str,
        switch: Switch | None = None,
        *addresses: str,
        ifname: str = "eth0",
        mac: str | None = None,
        gateway: str | Sequence[str] = (),
    ) -> Host:
        """A new host, plugged into a switch with these addresses and default routes."""
        namespace = self._namespace(name)
        quiet(namespace)
        host = Host(name, namespace, self._spawner, self._directory / name, self._stack)
        self.hosts[name] = host
        if switch is not None:
            self.connect(host, switch, *addresses, ifname=ifname, mac=mac)
        for via in [gateway] if isinstance(gateway, str) else gateway:
            host.add_route("default", via)
        return host

    def connect(
        self,
        host: Host,
        switch: Switch,
        *addresses: str,
        ifname: str = "eth0",
        mac: str | None = None,
    ) -> None:
        """Add an interface to a host, or replace one that was removed."""
        self._macs += 1
        number = self._macs
        host.add_interface(
            switch,
            *addresses,
            ifname=ifname,
            mac=mac or f"02:54:75:6c:{number >> 8:02x}:{number & 255:02x}",
        )

    def router(self, name: str, *networks: tuple[Switch, Sequence[str]]) -> Host:
        """A host that forwards between these networks, with eth0, eth1 … in them."""
        host = self.host(name)
        for number, (switch, addresses) in enumerate(networks):
            self.connect(host, switch, *addresses, ifname=f"eth{number}")
        host.forwarding(True)
        return host

    def power_on(self, host: Host) -> None:
        """Boot a machine after its ``power_off``; nothing runs on it yet."""
        if self.named is not None:
            withdraw(f"{self.named}-{host.name}")
        host.boot(self._new_namespace(host.name))
        self.ready()

    def ready(self, timeout: float = 30.0) -> None:
        """Wait until every port with a carrier forwards; the standard topologies call it."""
        for switch in self.switches.values():
            wait_until(switch.forwarding, timeout, f"the ports of {switch.name}")

    def _namespace(self, name: str) -> Namespace:
        if name in self.hosts or name in self.switches:
            raise LabError(f"the lab already has a {name}")
        return self._new_namespace(name)

    def _new_namespace(self, name: str) -> Namespace:
        namespace = Namespace.create()
        self._stack.callback(namespace.close)
        self.strays.add(namespace.id)
        if self.named is not None:
            published = f"{self.named}-{name}"
            record_namespace(self.named, published)
            namespace.publish(published)
        return namespace

    def _make_directory(self, stack: ExitStack) -> Path:
        """The directory for the hosts' state; removed with the lab unless it is kept."""
        if self.named is not None:
            directory = claim(self.named)
            if not self.keep:
                stack.callback(remove_named, self.named)
            return directory
        _sweep()
        directory = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, lock)
        fcntl.flock(lock, fcntl.LOCK_EX)
        stack.callback(shutil.rmtree, directory, ignore_errors=True)
        return directory


def _sweep() -> None:
    """Remove the state directories of labs that were killed: their locks are free."""
    for directory in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):
            lock = os.open(directory, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                status = os.fstat(lock)
                fresh = time.time() - status.st_mtime < _SETTLE
                if status.st_uid == os.geteuid() and not fresh:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    shutil.rmtree(directory, ignore_errors=True)
            finally:
                os.close(lock)
