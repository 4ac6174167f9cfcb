"""The recipes of docs/recipes.md, done as they stand there.

::

    client        lb1  VIP 10.0.0.100, 2001:db8::100      two backends
       │           │                                           │
    ═══╧═══════════╧═══════════════════════════════════════════╧════  10.0.0.0/24, 2001:db8::/64
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

from support.debian import Debian
from support.joined import agent
from support.running import Running
from tula.config.load import load_config
from tula.lab import Capture, Lab

_PAGE = Path(__file__).parents[2] / "docs" / "recipes.md"
_TRANSPORTS = (6, 17)
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Recipe(NamedTuple):
    """A section's configuration, and its scripts for backends in their order."""

    configuration: str
    scripts: list[str]


def read_recipe(title: str) -> Recipe:
    """By the heading of its section."""
    _, _, behind = _PAGE.read_text().partition(f"\n## {title}\n")
    section, _, _ = behind.partition("\n## ")
    blocks = _BLOCK.findall(section)
    (configuration,) = (text for kind, text in blocks if kind == "yaml")
    return Recipe(configuration, [text for kind, text in blocks if kind == "sh"])


class Cooked:
    """A lab with the recipe's machines; ``vips`` are the configuration's, whose services have the
    same ones, and the same backends."""

    def __init__(self, lab: Lab, folder: Path, recipe: Recipe) -> None:
        self.folder = folder
        self.path = folder / "tula.yaml"
        self.path.write_text(recipe.configuration)
        config = load_config(self.path).config
        service = config.services[0]
        self.name = service.name
        self.vips = [str(vip) for vip in service.vips]
        lan = lab.switch("lan")
        balancer = [str(address) for _, address in config.load_balancers]
        self.lb = lab.host("lb1", lan, *map(_on_link, balancer))
        self.client = Debian(lab.host("client", lan, "10.0.0.201/24", "2001:db8::201/64"), folder)
        self.backends = [
            Debian(lab.host(b.name, lan, *(_on_link(str(a)) for a in b.addresses)), folder)
            for b in service.backends
        ]
        lab.ready()

    def join(self) -> None:
        """As the page says; the machine is found by its addresses."""
        for backend in self.backends:
            agent(backend.host, "join", "-f", self.path)

    def configure(self, script: str) -> None:
        """What stands there for backends, but for what is done otherwise here: the packages are
        unpacked already, and ``systemctl`` says that there is no systemd to ask."""
        lines = [line for line in script.splitlines() if not line.startswith("apt-get install")]
        for backend in self.backends:
            backend.run("sh", "-e", input="\n".join(lines))

    def serve(self) -> Running:
        """The balancer's daemon, to be entered."""
        return Running(self.lb, self.path)

    def all_up(self, running: Running) -> None:
        """Until the checks have passed at every backend."""
        running.wait_for(within=60, **{b.host.name.replace("-", "_"): "up" for b in self.backends})

    def answers_of(self, ask: Callable[[str], None]) -> None:
        """Asks each VIP, and sees that the balancer had the questions and none of the answers."""
        own = set(self.client.host.addresses("eth0"))
        for vip in self.vips:
            with Capture(self.lb) as at_lb:
                ask(vip)
                ways = set(filter(None, map(_way, at_lb.frames())))
            assert [way for way in ways if way[1] == vip and way[0] in own]
            assert not [way for way in ways if way[0] == vip and way[1] in own]


def _way(frame: bytes) -> tuple[str, str] | None:
    """From where to where TCP or UDP go; a download has too many packets for more."""
    if frame[12:14] == b"\x08\x00" and frame[23] in _TRANSPORTS:
        return str(IPv4Address(frame[26:30])), str(IPv4Address(frame[30:34]))
    if frame[12:14] == b"\x86\xdd" and frame[20] in _TRANSPORTS:
        return str(IPv6Address(frame[22:38])), str(IPv6Address(frame[38:54]))
    return None


def _on_link(address: str) -> str:
    return f"{address}/64" if ":" in address else f"{address}/24"
