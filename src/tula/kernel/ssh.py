"""On which ports this machine's SSH listens."""

from __future__ import annotations

import os
from pathlib import Path

_LISTEN = "0A"


def ssh_ports(
    environment: dict[str, str] | None = None,
    proc: Path = Path("/proc"),
    configuration: Path = Path("/etc/ssh"),
) -> frozenset[int]:
    """The usual port, the one that this session came by, those of a listening sshd, and those
    that its configuration names.

    What cannot be read is passed over: a daemon with a user of its own does not see sshd's
    sockets, but Debian's configuration is there for everyone to read.
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
