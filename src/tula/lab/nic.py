"""A network card's offloads, by the ethtool ioctl."""

from __future__ import annotations

import array
import fcntl
import socket
import struct

from tula.lab.guard import LabError
from tula.lab.host import Host

_SIOCETHTOOL = 0x8946
_SET = {"rx": 0x15, "tx": 0x17, "sg": 0x19, "tso": 0x1F, "gso": 0x24, "gro": 0x2C}


def set_offload(host: Host, ifname: str = "eth0", **features: bool) -> None:
    """Switch ``rx`` and ``tx`` checksums, ``sg``, ``tso``, ``gso`` or ``gro``, as ethtool -K does.

    A veth hands 64-kB aggregates over as they are. For frames of wire size at the receiver, the
    *sender* needs ``tso=False, gso=False``; for a receiver that aggregates as a NIC does, that
    and ``gro=True`` at the receiver.
    """
    with host.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for feature, on in features.items():
            if feature not in _SET:
                raise LabError(f"no offload {feature}; there are: {', '.join(_SET)}")
            value = array.array("B", struct.pack("II", _SET[feature], int(on)))
            request = struct.pack("16sP16x", ifname.encode(), value.buffer_info()[0])
            try:
                fcntl.ioctl(control, _SIOCETHTOOL, request)
            except OSError as error:
                raise LabError(f"{host.name} {ifname} {feature}: {error.strerror}") from None
