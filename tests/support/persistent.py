"""A service that remembers its clients, changed step by step, and what its maps hold."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

from support.crowd import Crowd
from support.lab_configurations import backends_of
from support.serving import Serving
from tula.config.load import load_config
from tula.dataplane.nft.lookup3 import slot_of
from tula.engine.assemble import kernel_data_path
from tula.lab import Network
from tula.model.client_scopes import HeldClient, client_scopes
from tula.model.config import VirtualService
from tula.plan.slots import SlotTables


class Persistent(Serving):
    """One service "web" on ports 80 and 81 of all VIPs, by the first three backends."""

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
        return _name(service, table.content[table.slots[slot]][0])

    def held(self, address: str) -> tuple[str, float] | None:
        """The backend that is remembered for a client of the first service, and the seconds that
        its entry lives."""
        found = self._look_up(address)
        if found is None:
            return None
        assert found.seconds is not None
        return _name(load_config(self.path).config.services[0], found.backend), found.seconds

    def _look_up(self, address: str) -> HeldClient | None:
        scope = client_scopes(load_config(self.path).config.services)[0]
        applied = self._here.balancer.applied
        assert applied is not None
        with self.lb.enter():
            memory = applied.receipt.memory
            return kernel_data_path().look_up_client(scope, ip_address(address), memory)

    def counter(self, name: str) -> int:
        listed = self.lb.run(["nft", "list", "counter", "netdev", "tula", name]).stdout
        return int(listed.split("packets ")[1].split()[0])


def one(found: dict[int, set[str]]) -> dict[int, str]:
    """The backend of each client, which is one for all of its connections."""
    assert [client for client, names in found.items() if len(names) > 1] == []
    return {client: next(iter(names)) for client, names in found.items()}


def moved(before: dict[int, str], after: dict[int, str]) -> dict[int, str]:
    """The clients that have another backend, by the one that they had."""
    return {client: name for client, name in before.items() if after[client] != name}


def hashed(web: Persistent, crowd: Crowd, clients: Sequence[int]) -> dict[int, str]:
    """Where the hash leads them."""
    return {client: web.hashed(crowd.address(client)) for client in clients}


def _name(service: VirtualService, key: str) -> str:
    return next(b.name for b in service.backends if b.key == key)
