"""Sockets that listen on this machine: all of them, and those of SSH."""

from __future__ import annotations

import os
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from tula.model.config import IPAddress, Protocol
from tula.model.errors import KernelError

Listener = tuple[Protocol, IPAddress, int]
"""Protocol, address (0.0.0.0 or :: for all) and port."""

_FILES = {"tcp": Protocol.TCP, "tcp6": Protocol.TCP, "udp": Protocol.UDP, "udp6": Protocol.UDP}
_UDP_UNCONNECTED = "07"
_LISTEN = "0A"
"""TCP_LISTEN (include/net/tcp_states.h)."""


def read_listeners() -> frozenset[Listener]:
    """All listening sockets, by proc_pid_net(5). Raises KernelError."""
    found: set[Listener] = set()
    for name, protocol in _FILES.items():
        try:
            lines = (Path("/proc/thread-self/net") / name).read_text().splitlines()[1:]
        except FileNotFoundError:
            continue  # IPv6 is not there at all
        except OSError as error:
            raise KernelError(f"cannot read this machine's sockets: {error.strerror}") from error
        state = _LISTEN if protocol is Protocol.TCP else _UDP_UNCONNECTED
        for fields in (line.split() for line in lines):
            if len(fields) > 3 and fields[3] == state:
                address, _, port = fields[1].partition(":")
                found.add((protocol, _address(address), int(port, 16)))
    return frozenset(found)


def _address(text: str) -> IPAddress:
    """Words of four bytes, each in the machine's own order (net/ipv4/tcp_ipv4.c, %08X)."""
    words = (int(text[at : at + 8], 16) for at in range(0, len(text), 8))
    packed = b"".join(word.to_bytes(4, "little") for word in words)
    return IPv4Address(packed) if len(packed) == 4 else IPv6Address(packed)


def ssh_ports(
    environment: dict[str, str] | None = None,
    proc: Path = Path("/proc"),
    configuration: Path = Path("/etc/ssh"),
) -> frozenset[int]:
    """The ports of SSH: 22, that of this session, those on which an sshd listens, and those in
    its configuration.

    What cannot be read is skipped: a daemon that runs as a user of its own does not see sshd's
    sockets, but every user can read Debian's configuration of it.
    """
    ports = {22}
    session = (os.environ if environment is None else environment).get("SSH_CONNECTION", "").split()
    if len(session) == 4 and session[3].isdecimal():
        ports.add(int(session[3]))
    listening = _listening(proc)
    if listening:
        ports.update(listening[inode] for inode in _sshd_sockets(proc) if inode in listening)
    return frozenset(ports | _configured(configuration))


def _configured(directory: Path) -> set[int]:
    """The ports in sshd_config and what stands beside it (sshd_config(5): Port, ListenAddress)."""
    found: set[int] = set()
    for file in (directory / "sshd_config", *(directory / "sshd_config.d").glob("*.conf")):
        try:
            lines = file.read_text(errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            match line.replace("=", " ").split():
                case [word, port] if word.lower() == "port" and port.isdecimal():
                    found.add(int(port))
                case [word, place, *_] if word.lower() == "listenaddress":
                    port = place.rpartition(":")[2]
                    if port.isdecimal() and (place.count(":") == 1 or "]:" in place):
                        found.add(int(port))
    return found


def _listening(proc: Path) -> dict[str, int]:
    """The ports of listening TCP sockets, by inode (proc_pid_net(5))."""
    found: dict[str, int] = {}
    for name in ("tcp", "tcp6"):
        try:
            lines = (proc / "self" / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for fields in (line.split() for line in lines):
            if len(fields) > 9 and fields[3] == _LISTEN:
                found[fields[9]] = int(fields[1].rpartition(":")[2], 16)
    return found


def _sshd_sockets(proc: Path) -> set[str]:
    """The socket inodes of all processes named sshd."""
    inodes: set[str] = set()
    for process in proc.iterdir():
        if not process.name.isdecimal():
            continue
        try:
            if (process / "comm").read_text().strip() != "sshd":
                continue
            links = [str(entry.readlink()) for entry in (process / "fd").iterdir()]
        except OSError:
            continue
        inodes.update(link[8:-1] for link in links if link.startswith("socket:["))
    return inodes
