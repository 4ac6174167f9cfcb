"""Sockets of health probes: plain ones, and those whose packets go through the data path."""

from __future__ import annotations

import errno
import resource
import socket
import struct
from typing import Protocol

from tula.model.errors import KernelError
from tula.model.health import ProbeTarget

_IP_BIND_ADDRESS_NO_PORT = 24
_RECVERR = {4: (socket.IPPROTO_IP, 11), 6: (socket.IPPROTO_IPV6, 25)}
"""IP_RECVERR and IPV6_RECVERR, by version."""
_SEGMENT = 1200
"""TCP_MAXSEG of a probe: its answers fit into any tunnel, whatever the path's MTU."""

_FIXES = {
    errno.EPERM: "it needs CAP_NET_ADMIN, and CAP_NET_RAW for icmp",
    errno.EACCES: "it needs CAP_NET_ADMIN, and CAP_NET_RAW for icmp",
    errno.EMFILE: "raise the limit of open files",
    errno.EADDRNOTAVAIL: "its source address is not on this machine",
}


class ProbeSockets(Protocol):
    """Opens sockets for probes."""

    def open(self, target: ProbeTarget, kind: int, protocol: int = 0) -> socket.socket:
        """A socket for that target that does not block, unconnected. Raises KernelError.

        ``kind`` is SOCK_STREAM, SOCK_DGRAM or SOCK_RAW, ``protocol`` as of socket(2).
        """


class KernelProbeSockets:
    """Sockets of the network namespace that the calling thread is in."""

    def open(self, target: ProbeTarget, kind: int, protocol: int = 0) -> socket.socket:
        family = socket.AF_INET if target.address.version == 4 else socket.AF_INET6
        try:
            opened = socket.socket(family, kind | socket.SOCK_NONBLOCK, protocol)
            try:
                if kind == socket.SOCK_STREAM:
                    opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT)
                else:
                    # Without it, UDP and raw sockets do not report "no route to host" (ip(7)).
                    opened.setsockopt(*_RECVERR[target.address.version], 1)
                if target.source is not None:
                    _through_the_data_path(opened, target, kind)
            except OSError:
                opened.close()
                raise
        except OSError as error:
            fix = _FIXES.get(error.errno or 0)
            message = f"cannot open a socket for probes: {error.strerror}"
            raise KernelError(f"{message}; {fix}" if fix else message) from error
        return opened


def _through_the_data_path(opened: socket.socket, target: ProbeTarget, kind: int) -> None:
    # As bytes: both are unsigned, and a C int is not.
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, struct.pack("=I", target.mark))
    # Above 6 this needs CAP_NET_ADMIN (socket(7)).
    priority = struct.pack("=I", target.priority)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, priority)
    if kind != socket.SOCK_RAW:
        # connect() chooses the port, and knows the destination: 28,000 ports for each, not in all.
        opened.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
    opened.bind((str(target.source), 0))


def allow_many_sockets() -> int:
    """Raises the soft limit of open files to the hard limit, and returns it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard
