"""A fake machine that can become a backend: it understands the commands that Tula gives it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from ipaddress import ip_address

from tula.model.backend_setup import BackendFacts, GuePort, ObservedLink
from tula.model.command import Command
from tula.model.config import IPAddress
from tula.model.errors import KernelError

_TOLD = {"id": "id", "dstport": "port", "remote": "remote"}


def _loopback() -> dict[str, ObservedLink]:
    return {"lo": ObservedLink("", "", True), "eth0": ObservedLink("", "02:00:00:00:00:01", True)}


@dataclass
class FakeBackendHost:
    """Its state as values. It refuses what the kernel refuses; after ``left`` commands it is dead,
    as is the program that gave them (``Killed``)."""

    links: dict[str, ObservedLink] = field(default_factory=_loopback)
    addresses: set[tuple[IPAddress, str]] = field(default_factory=set)
    settings: dict[str, str] = field(default_factory=dict)
    ports: set[GuePort] = field(default_factory=set)
    filter: str = ""
    files: dict[str, str] = field(default_factory=dict)
    lacking: frozenset[str] = frozenset({"dummy"})
    mtu: int = 1500
    left: int | None = None
    refused: set[str] = field(default_factory=set)
    """Prefixes that it does not take, without a reason."""

    class Killed(BaseException):
        """The program is gone, in the middle."""

    def observe(self, settings: Iterable[str], files: Iterable[str] = ()) -> BackendFacts:
        found = self.read(settings)
        return BackendFacts(
            dict(self.links),
            frozenset(self.addresses),
            frozenset(),
            found,
            frozenset(self.ports),
            self.filter,
            {path: self.files[path] for path in files if path in self.files},
        )

    def read(self, settings: Iterable[str]) -> dict[str, str]:
        return {name: self.settings[name] for name in settings if name in self.settings}

    def missing(self, kinds: Iterable[str]) -> set[str]:
        return set(kinds) & self.lacking

    def link_mtu(self, addresses: Iterable[IPAddress]) -> int:  # noqa: ARG002
        return self.mtu

    def run(self, commands: Sequence[Command]) -> None:
        for one in commands:
            if self.left is not None:
                if not self.left:
                    raise self.Killed
                self.left -= 1
            self._run(one)

    def _run(self, one: Command) -> None:
        match one.words:
            case ["sysctl", "-q", "-w", setting]:
                name, _, value = setting.partition("=")
                name = name if "/" in name else name.replace(".", "/")
                if name not in self.settings:
                    raise KernelError(f"sysctl: cannot stat {name}")
                self.settings[name] = value
            case ["nft", "-f", "-"]:
                self.filter = one.text.partition("\ndelete table")[2].partition("\n")[2]
            case ["nft", "delete", "table", "inet", _]:
                self._require(bool(self.filter), "No such file or directory")
                self.filter = ""
            case ["ip", *rest] if "fou" in rest:
                port = GuePort(int(rest[rest.index("port") + 1]), 6 if "-6" in rest else 4)
                added = "add" in rest
                self._require((port in self.ports) is not added, "Address already in use")
                (self.ports.add if added else self.ports.remove)(port)
            case ["ip", "link", "add", name, *rest]:
                self._add_link(name, rest)
            case ["ip", "link", "set", name, *rest]:
                self._require(name in self.links, "Cannot find device")
                if "up" in rest:
                    self.links[name] = replace(self.links[name], up=True)
            case ["ip", "link", "del", name]:
                self._require(name in self.links, "Cannot find device")
                del self.links[name]
                self.addresses = {(a, d) for a, d in self.addresses if d != name}
                self.settings.pop(f"net/ipv4/conf/{name}/rp_filter", None)
            case ["ip", "address", verb, prefix, "dev", device, *_]:
                key = (ip_address(prefix.partition("/")[0]), device)
                self._require(prefix not in self.refused, "refused")
                self._require(device in self.links, "Cannot find device")
                self._require((key in self.addresses) is (verb == "del"), "File exists")
                (self.addresses.add if verb == "add" else self.addresses.remove)(key)
            case ["install", *_, path]:
                self.files[path] = one.text
            case ["rm", "-f", path]:
                self.files.pop(path, None)
            case ["sh", "-c", script] if "networkctl reload" in script:
                pass
            case words:
                raise KernelError(f"no such command: {words}")

    def _add_link(self, name: str, words: list[str]) -> None:
        self._require(name not in self.links, "File exists")
        options = dict(itertools.pairwise(words))
        kind = options["type"]
        attributes: dict[str, object] = {}
        for word, key in _TOLD.items():
            if word in options:
                value = options[word]
                attributes[key] = int(value) if value.isdecimal() else value
        if kind not in ("dummy", "vxlan"):
            attributes["remote"] = (
                "any" if attributes.get("remote") in (None, "::") else attributes["remote"]
            )
        if "local" in options:
            six = kind == "vxlan" and ":" in options["local"]
            attributes["local6" if six else "local"] = options["local"]
        if options.get("mode") == "any":
            attributes["proto"] = "any"
        if "nolearning" in words:
            attributes["learning"] = False
        place = _place(kind, attributes)
        taken = {_place(link.kind, link.attributes) for link in self.links.values()}
        self._require(place is None or place not in taken, "File exists")
        self.links[name] = ObservedLink(kind, options.get("address", ""), False, attributes)
        self.settings[f"net/ipv4/conf/{name}/rp_filter"] = "1"

    @staticmethod
    def _require(fine: bool, reason: str) -> None:
        if not fine:
            raise KernelError(reason)


def _place(kind: str, attributes: object) -> tuple[object, ...] | None:
    """What the kernel has one device of."""
    assert isinstance(attributes, dict)
    if kind == "vxlan":
        return kind, attributes.get("id"), attributes.get("port"), "local6" in attributes
    if kind in ("sit", "gre", "ip6tnl", "ip6gre"):
        return kind, attributes.get("local"), attributes.get("remote")
    return None
