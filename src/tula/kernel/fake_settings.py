"""Fakes of the settings outside of Tula's table: sysctls, and the probes' rules and routes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from tula.model.errors import KernelError


@dataclass
class FakeSysctls:
    """Settings as values; those in ``refuse`` cannot be written. ``writes`` are in their order."""

    values: dict[str, str] = field(default_factory=dict)
    refuse: set[str] = field(default_factory=set)
    writes: list[tuple[str, str]] = field(default_factory=list)

    def read(self, name: str) -> str | None:
        return self.values.get(name)

    def write(self, name: str, value: str) -> None:
        reason = "Read-only file system" if name in self.refuse else "No such file or directory"
        if name in self.refuse or name not in self.values:
            raise KernelError(f"cannot set sysctl {name} to {value}: {reason}")
        self.writes.append((name, value))
        self.values[name] = value


@dataclass
class FakeProbeRoute:
    """The IP versions that have a rule and a route; with ``refuse`` nothing can be changed."""

    versions: set[int] = field(default_factory=set)
    refuse: str = ""

    def ensure(self, versions: Iterable[int]) -> bool:
        wanted = set(versions)
        if wanted == self.versions:
            return False
        if self.refuse:
            raise KernelError(self.refuse)
        self.versions = wanted
        return True

    def remove(self) -> bool:
        return self.ensure(())
