"""The document's settings beside the services: connections, maglev, marks, tunnels."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, PlainValidator, WithJsonSchema

from tula.config.fields import Bool, Duration, Strict, integer
from tula.config.scalars import fault, read_int
from tula.model.config import Connections, MaglevSettings, MarkRange, TunnelSettings

MIN_SLOTS, MAX_SLOTS = 251, 65537
BLOCK = 65536
"""Backend ids come in blocks of this many marks."""

_TOP = 0xFFFFFFFF
_TABLE = Connections()


def is_prime(number: int) -> bool:
    """Whether a number up to MAX_SLOTS + 1 is prime."""
    return number > 1 and all(number % d for d in range(2, int(number**0.5) + 1))


def _read_slots(value: object) -> int:
    slots = read_int(value, MIN_SLOTS, MAX_SLOTS)
    if not is_prime(slots):
        below = next(n for n in range(slots, 1, -1) if is_prime(n))
        above = next(n for n in range(slots, MAX_SLOTS + 1) if is_prime(n))
        raise fault(f"{slots} is no prime; the nearest are {below} and {above}")
    return slots


def _read_first(value: object) -> int:
    first = read_int(value, BLOCK, _TOP, hexadecimal=True)
    if first % BLOCK:
        down = first - first % BLOCK
        raise fault(f"{value} is no multiple of 0x10000; the one below is {down:#x}")
    return first


def _read_last(value: object) -> int:
    last = read_int(value, BLOCK, _TOP, hexadecimal=True)
    if (last + 1) % BLOCK:
        raise fault(f"{value} does not end a block of 0x10000 marks; write {last | 0xFFFF:#x}")
    return last


_Slots = Annotated[
    int,
    PlainValidator(_read_slots),
    WithJsonSchema({"type": "integer", "minimum": MIN_SLOTS, "maximum": MAX_SLOTS}),
]
_Seed = Annotated[int, *integer(0, _TOP, hexadecimal=True)]
_First = Annotated[
    int,
    PlainValidator(_read_first),
    WithJsonSchema({"type": "integer", "minimum": BLOCK, "maximum": _TOP, "multipleOf": BLOCK}),
]
_Last = Annotated[
    int,
    PlainValidator(_read_last),
    WithJsonSchema({"type": "integer", "minimum": 2 * BLOCK - 1, "maximum": _TOP}),
]
_Port = Annotated[int, *integer(1, 65535)]
_Vni = Annotated[int, *integer(1, (1 << 24) - 1)]
_TUNNELS = TunnelSettings()
_Size = Annotated[int, *integer(1024, 1 << 26)]


class ConnectionsModel(Strict):
    """The connection table."""

    enabled: Bool = Field(default=_TABLE.enabled, description="Whether flows are remembered.")
    size: _Size = Field(default=_TABLE.size, description="Entries at most.")
    tcp: Duration = Field(
        default=_TABLE.tcp, description="How long an idle established TCP connection is kept."
    )
    tcp_half_open: Duration = Field(
        default=_TABLE.tcp_half_open,
        description="How long a TCP connection is kept before it is answered.",
    )
    udp: Duration = Field(default=_TABLE.udp, description="How long an idle UDP flow is kept.")


class MaglevModel(Strict):
    """The consistent hash table of the maglev scheduler; the same on every balancer."""

    slots: _Slots = Field(
        default=0,
        description="Slots of every table, a prime; by the number of backends when left out.",
    )
    seed: _Seed = Field(default=MaglevSettings().seed, description="Seed of the hash.")


class MarksModel(Strict):
    """The packet marks that Tula may use; take a part when other software marks packets too."""

    first: _First = Field(
        default=MarkRange().first, description="The first mark, a multiple of 65536."
    )
    last: _Last = Field(
        default=MarkRange().last, description="The last mark; one more is a multiple."
    )


class TunnelsModel(Strict):
    """What both ends of a tunnel must agree on; the defaults suit most networks."""

    vxlan_id: _Vni = Field(default=_TUNNELS.vxlan_id, description="The VXLAN network identifier.")
    vxlan_port: _Port = Field(default=_TUNNELS.vxlan_port, description="VXLAN's UDP port.")
    gue_port: _Port = Field(default=_TUNNELS.gue_port, description="GUE's UDP port.")
