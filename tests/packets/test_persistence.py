"""Client persistence: all connections of a client go to one backend, for as long as it is known.

::

    client-1 (hundreds of clients, as raw packets)      lb        backend-1 … 4
         │                                              │             │
    ═════╧══════════════════════════════════════════════╧═════════════╧═════  lan
"""

from __future__ import annotations

import os
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest

from support.crowd import Crowd
from support.lab_configurations import backends_of
from support.packets import vip_of
from support.serving import Serving
from tula.config.load import load_config
from tula.dataplane.nft.lookup3 import slot_of
from tula.lab import Network
from tula.plan.slots import SlotTables

pytestmark = pytest.mark.kernel

MANY = bool(os.environ.get("TULA_SOAK"))
COUNT = 2000 if MANY else 200
HASHES = ("maglev", "source-hash")
TURNS = ("rr", "wrr", "random", "least-connections")
CLIENTS = range(COUNT)


class Persistent(Serving):
    """Serves TCP and UDP of ports 80 and 81 by the first three backends."""

    def __init__(self, network: Network, path: Path, scheduler: str, **persistence: Any) -> None:
        super().__init__(network, path, scheduler=scheduler, ports=[80, 81])
        self.web["persistence"] = {"timeout": "5m", **persistence}
        self.start_over()
        self.apply()

    def weigh(self, **weights: int) -> None:
        """These backends, by number: ``b1=100``."""
        hosts = {f"b{n}": host for n, host in enumerate(self.network.backends, 1)}
        self.web["backends"] = {}
        for name, weight in weights.items():
            self.web["backends"] |= backends_of(hosts[name], weight=weight)
        assert self.apply()

    def hashed(self, address: str) -> str:
        """Where the hash of a client's address leads."""
        config = load_config(self.path).config
        service = config.services[0]
        assert service.persistence is not None
        table = SlotTables().maglev(service, config)
        assert table is not None
        bits = service.persistence.bits(ip_address(address).version)
        client = ip_network((address, bits), strict=False).network_address
        slot = slot_of(client, None, config.maglev.seed, len(table.slots))
        key = table.content[table.slots[slot]][0]
        return next(b.name for b in service.backends if b.key == key)


def one(found: dict[int, set[str]]) -> dict[int, str]:
    """The backend of each client, which is one for all of its connections."""
    assert [client for client, names in found.items() if len(names) > 1] == []
    return {client: next(iter(names)) for client, names in found.items()}


@pytest.mark.parametrize(
    ("scheduler", "family", "prefix", "udp"),
    [
        ("maglev", 4, 32, False),
        ("rr", 6, 64, True),
        ("random", 4, 24, True),
    ],
)
def test_who_moves_and_why(
    four_backends: Network, tmp_path: Path, scheduler: str, family: int, prefix: int, udp: bool
) -> None:
    """Through a backend added, weights changed, one drained, released, removed; and a flush."""
    key = "prefix" if family == 4 else "prefix6"
    with Persistent(four_backends, tmp_path / "tula.yaml", scheduler, **{key: prefix}) as web:
        vip = vip_of(four_backends, family)
        with Crowd(four_backends, web.client, vip).here() as crowd:
            _moves(web, crowd, udp)


def _moves(web: Persistent, crowd: Crowd, udp: bool) -> None:
    def ask(times: int = 1, port: int = 80) -> dict[int, str]:
        return one(crowd.connect(CLIENTS, times, port, udp=udp))

    first = ask(5)
    assert not web.apply()
    assert ask(port=81) == first
    web.weigh(b1=100, b2=100, b3=100, b4=100)
    assert ask() == first, "added"
    web.weigh(b1=1, b2=100, b3=100, b4=300)
    assert ask() == first, "reweighed"
    web.weigh(b1=1, b2=0, b3=100, b4=300)
    assert ask() == first, "drained, and keeps its clients"
