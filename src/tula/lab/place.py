"""Where servers live."""

from __future__ import annotations

import socket as socketlib
from typing import NamedTuple, Protocol


class Place(Protocol):
    """A ``Host``, or the namespace that this process was started in."""

    @property
    def name(self) -> str:
        """What a server there calls itself."""

    def addresses(self) -> list[str]:
        """Where it listens unless told otherwise."""

    def socket(self, family: int, kind: int, protocol: int = 0) -> socketlib.socket:
        """A socket in that place."""


class Here(NamedTuple):
    """The namespace that this process was started in."""

    name: str
    listen: tuple[str, ...]

    def addresses(self) -> list[str]:
        """Those that the command line named."""
        return list(self.listen)

    def socket(self, family: int, kind: int, protocol: int = 0) -> socketlib.socket:
        """An ordinary socket."""
        return socketlib.socket(family, kind, protocol)
