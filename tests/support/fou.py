"""Ports that receive FOU and GUE, by generic netlink: pyroute2 0.9.7 has no messages for them."""

from __future__ import annotations

import errno
import shutil
import socket
import subprocess
from typing import Any, NamedTuple

from pyroute2.netlink import NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import AsyncGenericNetlinkSocket, GenericNetlinkSocket

_ADD, _GET = 1, 3
_DIRECT, _GUE = 1, 2


class FouPort(NamedTuple):
    """One of them, as the kernel lists it."""

    port: int
    family: int
    """AF_INET or AF_INET6, of the outer packets."""
    protocol: int
    """The inner packets' protocol; 0 with GUE, whose header says it."""

    @property
    def gue(self) -> bool:
        """Whether it receives GUE; else FOU."""
        return self.protocol == 0


class _Message(genlmsg):  # type: ignore[misc]
    """include/uapi/linux/fou.h"""

    prefix = "FOU_ATTR_"
    nla_map = (
        ("FOU_ATTR_UNSPEC", "none"),
        ("FOU_ATTR_PORT", "be16"),
        ("FOU_ATTR_AF", "uint8"),
        ("FOU_ATTR_IPPROTO", "uint8"),
        ("FOU_ATTR_TYPE", "uint8"),
        ("FOU_ATTR_REMCSUM_NOPARTIAL", "flag"),
        ("FOU_ATTR_LOCAL_V4", "ip4addr"),
        ("FOU_ATTR_LOCAL_V6", "ip6addr"),
        ("FOU_ATTR_PEER_V4", "ip4addr"),
        ("FOU_ATTR_PEER_V6", "ip6addr"),
        ("FOU_ATTR_PEER_PORT", "be16"),
        ("FOU_ATTR_IFINDEX", "int32"),
    )


class _Async(AsyncGenericNetlinkSocket):  # type: ignore[misc]
    module_err_level = "debug"  # a kernel without it is an answer, no error


class _Socket(GenericNetlinkSocket):  # type: ignore[misc]
    async_class = _Async


def _request(command: int, flags: int, **values: int) -> list[Any]:
    with _Socket() as netlink:
        netlink.bind("fou", _Message)
        message = _Message()
        message["cmd"], message["version"] = command, 1
        message["attrs"] = [(f"FOU_ATTR_{name}", value) for name, value in values.items()]
        flags |= NLM_F_REQUEST
        return list(netlink.nlm_request(message, msg_type=netlink.prid, msg_flags=flags))


def has_fou() -> bool:
    """Whether the running kernel has them; the calling thread's namespace is asked."""
    # Linux 6.1: nothing loads these by itself, neither the family's name nor a link's encap-type.
    if modprobe := shutil.which("modprobe", path="/usr/sbin:/sbin"):
        subprocess.run([modprobe, "--all", "--quiet", "fou", "fou6"], check=False)
    try:
        list_fou_ports()
    except NetlinkError as error:
        if error.code == errno.ENOENT:
            return False
        raise
    return True


def add_fou_port(port: int, family: int = socket.AF_INET, protocol: int = 0) -> None:
    """``ip fou add port PORT gue``, or FOU for one inner protocol, in the thread's namespace."""
    values = {"TYPE": _DIRECT, "IPPROTO": protocol} if protocol else {"TYPE": _GUE}
    _request(_ADD, NLM_F_ACK, PORT=port, AF=family, **values)


def list_fou_ports() -> list[FouPort]:
    """``ip fou show``."""
    return [
        FouPort(
            message.get_attr("FOU_ATTR_PORT"),
            message.get_attr("FOU_ATTR_AF"),
            message.get_attr("FOU_ATTR_IPPROTO"),
        )
        for message in _request(_GET, NLM_F_DUMP)
    ]
