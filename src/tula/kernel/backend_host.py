"""A machine as a backend: what it has, read by ip and nft, and the commands that change it.

Commands rather than netlink, so that a person can read and repeat what is done.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from tula.kernel.network import OWNER
from tula.kernel.rtnetlink import RtReader
from tula.kernel.sysctls import KernelSysctls
from tula.kernel.tunnels import KernelTunnels
from tula.model.backend_setup import (
    TABLE,
    BackendFacts,
    GuePort,
    ObservedLink,
    disable_ipv6,
)
from tula.model.command import Command, command
from tula.model.config import IPAddress
from tula.model.errors import KernelError

_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
_MODULES = {
    **{"sit": "sit", "ip6tnl": "ip6_tunnel", "gre": "ip_gre", "ip6gre": "ip6_gre"},
    **{"vxlan": "vxlan", "dummy": "dummy", "fou": "fou", "fou6": "fou6"},
}
_FALLBACK = "net/core/fb_tunnels_only_for_init_net"
_NONE = "2"
_NO_PROGRAM = 127
"""As a shell's exit status."""


class BackendHost(Protocol):
    """One machine, in one network namespace."""

    def observe(self, settings: Iterable[str], files: Iterable[str] = ()) -> BackendFacts:
        """What it has; of sysctls and files those named. Raises KernelError."""

    def read(self, settings: Iterable[str]) -> dict[str, str]:
        """The sysctls of these names that exist. Raises KernelError."""

    def run(self, commands: Sequence[Command]) -> None:
        """Runs them in their order. Raises KernelError at the first that fails."""

    def missing(self, kinds: Iterable[str]) -> set[str]:
        """Which kinds of links it can have neither now nor by a module. Raises KernelError."""

    def link_mtu(self, addresses: Iterable[IPAddress]) -> int:
        """The smallest MTU of the links with these addresses, in bytes; 1,500 if there is none."""


class KernelBackendHost:
    """The network namespace that the calling thread is in."""

    def __init__(self) -> None:
        self._sysctls = KernelSysctls()

    def observe(self, settings: Iterable[str], files: Iterable[str] = ()) -> BackendFacts:
        links = _links()
        try:
            with RtReader() as reader:
                names = {link.index: link.name for link in reader.links()}
                entries = reader.addresses()
        except OSError as error:
            raise KernelError(f"cannot read this machine's addresses: {error.strerror}") from error
        lengths = {(ip_address(e.text), names.get(e.index, "")): e.length for e in entries}
        return BackendFacts(
            links=links,
            addresses=frozenset(lengths),
            lengths=lengths,
            balanced=frozenset(ip_address(e.text) for e in entries if e.owner == OWNER),
            settings=self.read(settings),
            ports=frozenset(_ports()),
            filter=_listing(),
            files=dict(_files(files)),
            ipv6=self._sysctls.read(disable_ipv6("default")) is not None,
        )

    def read(self, settings: Iterable[str]) -> dict[str, str]:
        values = {name: self._sysctls.read(name) for name in settings}
        return {name: value for name, value in values.items() if value is not None}

    def run(self, commands: Sequence[Command]) -> None:
        for one in commands:
            done = _call(one)
            if done.returncode != 0:
                said = (done.stderr or done.stdout).strip().replace("\n", " ")
                raise KernelError(f"{one.words[0]}: {said} (the command was: {_short(one)})")

    def missing(self, kinds: Iterable[str]) -> set[str]:
        wanted = set(kinds)
        self._load(wanted)
        return KernelTunnels().missing(wanted)

    def link_mtu(self, addresses: Iterable[IPAddress]) -> int:
        wanted = set(addresses)
        with RtReader() as reader:
            holders = {e.index for e in reader.addresses() if ip_address(e.text) in wanted}
            return min((link.mtu for link in reader.links() if link.index in holders), default=1500)

    def _load(self, kinds: Iterable[str]) -> None:
        """Loads modules so that they bring no devices of their own.

        Tunnel modules make fallback devices such as sit0, unless this sysctl says not to (Linux
        5.17; ip-sysctl.rst); dummy makes dummy0.
        """
        absent = [
            _MODULES[kind] for kind in kinds if not (Path("/sys/module") / _MODULES[kind]).exists()
        ]
        if not absent:
            return
        loads = [f"modprobe -q {m}{' numdummies=0' if m == 'dummy' else ''}" for m in absent]
        setting = f"/proc/sys/{_FALLBACK}"
        # By a shell of its own: it puts the setting back also when this process is killed. Where
        # the setting may not be written the fallback devices come, down and without addresses.
        script = [
            "trap '' INT TERM HUP",
            f"was=$(cat {setting}); echo {_NONE} >{setting}",
            *loads,
            f"echo $was >{setting}",
        ]
        _call(Command(("sh", "-c", "\n".join(script))))


def _call(one: Command) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            one.words,
            input=one.text or None,
            stdin=None if one.text else subprocess.DEVNULL,
            env={**os.environ, **_ENVIRONMENT},
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(
            one.words, _NO_PROGRAM, "", "there is no such program here"
        )


def _short(one: Command) -> str:
    return str(one).partition("\n")[0]


def _ask(line: str) -> Any:
    done = _call(command(line))
    if done.returncode != 0:
        raise KernelError(f"{line}: {done.stderr.strip()}")
    return json.loads(done.stdout or "[]")


def _files(paths: Iterable[str]) -> Iterator[tuple[str, str]]:
    for path in paths:
        with suppress(OSError):
            yield path, Path(path).read_text(errors="replace")


def _links() -> dict[str, ObservedLink]:
    found: dict[str, ObservedLink] = {}
    for link in _ask("ip -j -d link show"):
        info = link.get("linkinfo", {})
        found[link["ifname"]] = ObservedLink(
            kind=info.get("info_kind", ""),
            mac=link.get("address", ""),
            up="UP" in link["flags"],
            attributes=info.get("info_data", {}),
        )
    return found


def _ports() -> list[GuePort]:
    done = _call(command("ip fou show"))
    ports = []
    # "port 5555 gue", "port 5555 gue -6"; an error without the module, which then has none.
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        words = line.split()
        if words[:1] == ["port"] and "gue" in words:
            ports.append(GuePort(int(words[1]), 6 if "-6" in words else 4))
    return ports


def _listing() -> str:
    done = _call(command(f"nft -s -nn list table inet {TABLE}"))
    if done.returncode == 0:
        return done.stdout
    if done.returncode == _NO_PROGRAM or "No such file" in done.stderr:
        return ""  # l2 needs no table, and no nft
    raise KernelError(f"nft: {done.stderr.strip()}")


def has_dummy(host: BackendHost) -> bool:
    """Whether VIPs can have a device of their own."""
    return not host.missing({"dummy"})
