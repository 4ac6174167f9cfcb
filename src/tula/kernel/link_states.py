"""The state of the machine's interfaces, and whose programs see their packets before nftables."""

from __future__ import annotations

import os

from tula.kernel.rtnetlink import RtReader
from tula.model.errors import KernelError
from tula.model.host import LinkState

_UP, _LOWER_UP = 0x1, 0x10000
_INGRESS = {"ingress", "clsact"}
"""What tc's ingress programs hang on (sch_ingress.c)."""


def read_link_states() -> dict[str, LinkState]:
    """By interface. Raises KernelError."""
    try:
        with RtReader() as reader:
            links = reader.links()
            hooked = {index for index, kind in reader.qdiscs() if kind in _INGRESS}
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise KernelError(f"cannot read this machine's interfaces: {reason}") from error
    found = {}
    for link in links:
        programs = ["an XDP program"] if link.xdp else []
        programs += ["a tc ingress hook"] if link.index in hooked else []
        up, carrier = bool(link.flags & _UP), bool(link.flags & _LOWER_UP)
        found[link.name] = LinkState(up, carrier, tuple(programs))
    return found
