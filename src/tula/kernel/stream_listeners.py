"""Sockets on which this machine answers TCP."""

from __future__ import annotations

import errno
import socket
from ipaddress import IPv4Address, IPv6Address

_BACKLOG = 1024
_PRIVILEGED = 1024


class ListenError(Exception):
    """An address and port cannot be listened on; why, and what to do about it."""


def open_listener(address: IPv4Address | IPv6Address, port: int) -> socket.socket:
    """A socket that listens there. ``::`` is all of IPv6, and nothing of IPv4. Raises
    ListenError."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    made = None
    try:
        made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        # Connections of an earlier listener may still be closing (TIME-WAIT).
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((str(address), port))
        made.listen(_BACKLOG)
        made.setblocking(False)
    except OSError as error:
        if made is not None:
            made.close()
        raise ListenError(_explain(error, port)) from error
    return made


def _explain(error: OSError, port: int) -> str:
    match error.errno:
        case errno.EADDRINUSE:
            return f"another program listens there; ss -ltnp 'sport = {port}' shows it"
        case errno.EADDRNOTAVAIL:
            return "this machine does not have the address; it is tried again"
        case errno.EACCES if port < _PRIVILEGED:
            return f"ports below {_PRIVILEGED} take CAP_NET_BIND_SERVICE; give a higher one"
    return error.strerror or str(error)
