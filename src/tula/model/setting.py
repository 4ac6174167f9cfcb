"""How a setting is declared: once, beside the field of the value that holds it.

::

    size: Annotated[int, Setting("Entries at most.", Integer(1024, 1 << 26))] = 262144

is a key of the configuration. Its name, type and default are the field's; a field without default
is required. ``tula.config`` derives from that how the key is read, what is said of a wrong value
and the JSON Schema. Fields without ``Setting`` are no keys.

Annotations stay strings until ``tula.config`` asks for them, so that none of this costs the start
of a command anything.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto


@dataclass(frozen=True, slots=True)
class Integer:
    """Whole numbers from ``low`` to ``high``.

    ``hexadecimal``: 0x… may be written. ``multiple`` divides the number plus ``offset``.
    ``never``: the word that stands for None.
    """

    low: int
    high: int
    hexadecimal: bool = False
    prime: bool = False
    multiple: int = 1
    offset: int = 0
    never: str = ""


@dataclass(frozen=True, slots=True)
class Duration:
    """A time, kept in seconds: more than 0 and a year at most; ``zero``: 0 too."""

    zero: bool = False


@dataclass(frozen=True, slots=True)
class OneOf:
    """One of a few words, each with the value that it stands for."""

    words: Mapping[str, object]
    called: str = ""
    """What messages call it, if not by its key."""


class Form(Enum):
    """Values with rules of their own, which a reader of ``tula.config`` knows."""

    INTERFACES = auto()
    INTERFACE = auto()
    ANNOUNCE = auto()
    """true, false, vrrp, bgp or an interface"""
    PORTS = auto()
    ADDRESSES_BY_NAME = auto()
    ROUTERS = auto()
    """AS numbers by address"""
    HTTP_PATH = auto()
    HTTP_HEADERS = auto()
    NAME = auto()
    """1 to 63 of a-z, 0-9 and hyphens"""
    BACKUP = auto()
    """true, false or a level, 1 to 255"""
    PREFIXES = auto()
    """a list of addresses and prefixes"""
    FILE = auto()
    """an absolute path"""
    ADDRESS_OR_SELF = auto()
    """an address, a list of them, or self, which is none"""
    RECEIVERS = auto()
    """the list of who is notified"""
    URL = auto()
    """http or https"""
    MAILBOX = auto()
    """user@domain"""
    MAILBOXES = auto()
    HOST_PORT = auto()
    """a name or an address, and a port"""


@dataclass(frozen=True, slots=True)
class Setting:
    """Makes a field a key of the configuration.

    ``about`` is one sentence for people who write the file. ``values`` are the bounds, where the
    type does not say enough. ``key`` is its name in the file, if that differs from the field's.
    ``expected`` is what messages ask for where a list may stand, ``example`` what a required
    key could be. ``distinct``: no value may stand in the list twice. ``local``: it runs a program,
    names a file or opens a listener, and comes only from the local file, never over the network
    (see ``tula.config.local_settings``). ``alone``: the key of a map that a value alone gives.
    """

    about: str
    values: Integer | Duration | OneOf | Form | None = None
    key: str = ""
    expected: str = ""
    example: str = ""
    distinct: bool = False
    local: bool = False
    alone: str = ""
