"""``tula trace`` names the backend that the kernel chooses, for flows drawn at random.

::

    client-1 (30 addresses of each family), -2      lb         backend-1 … 4
         │                                          │               │   (VIPs on lo)
    ═════╧══════════════════════════════════════════╧═══════════════╧═════  lan
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from support.builders import trace_flow
from support.in_process import InProcess, call_tula
from support.lab_configurations import backends_of, service_of, write_config
from support.packets import FAMILIES, PROTOCOLS, vip_of
from tula.config.load import load_config
from tula.lab import Lab, Network, flat, flows, serve_tcp, serve_udp
from tula.model.config import Config, Protocol
from tula.model.flow import Flow
from tula.plan import slots
from tula.plan.maglev import maglev_table

pytestmark = pytest.mark.kernel

FLOWS = 200
CLIENTS = {
    4: [f"10.9.0.{number}" for number in range(220, 250)],
    6: [f"fd09::{number:x}:{number}" for number in range(220, 250)],
}
Asked = dict[tuple[str, int], str]
"""By the client's address and port: who answered."""


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Lab() as lab:
        made = flat(lab, backends=4)
        client = made.client
        client.add_address(
            "eth0", *(f"{a}/24" for a in CLIENTS[4]), *(f"{a}/64" for a in CLIENTS[6])
        )
        for backend in made.backends:
            serve_tcp(backend, [80])
            serve_udp(backend, [80])
        yield made


@pytest.fixture(autouse=True)
def _tables_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A trace makes its Maglev table anew; hundreds of flows of one configuration need it once."""
    monkeypatch.setattr(slots, "maglev_table", lru_cache(maglev_table))


def apply(network: Network, directory: Path, top: dict[str, Any], **keys: Any) -> Path:
    """Applies a configuration of one service for both protocols, and returns it.

    Without flow tables: here it is the choice that is proven, for ports that come up again.
    """
    top = {"connections": {"enabled": False}, **top}
    service = service_of(network, protocol=["tcp", "udp"], **keys)
    configuration = write_config(directory / "tula.yaml", {"web": service}, **top)
    InProcess(network.lb).apply(configuration)
    return configuration


def ask(network: Network, family: int, protocol: str, seed: int = 1, count: int = FLOWS) -> Asked:
    """So many flows from random addresses and ports, the same for the same seed."""
    drawn = random.Random(f"{family} {protocol} {seed}")
    wanted: dict[str, set[int]] = {}
    while sum(map(len, wanted.values())) < count:
        wanted.setdefault(drawn.choice(CLIENTS[family]), set()).add(drawn.randrange(1024, 65536))
    return {
        (client, port): name
        for client, ports in wanted.items()
        for port, name in flows(
            network.client, vip_of(network, family), 80, ports, protocol, source=client
        ).items()
    }


def traced(config: Config, vip: str, protocol: str, asked: Asked) -> Asked:
    """The same flows through the configuration."""
    return {
        (client, port): trace_flow(
            config,
            Flow(ip_address(client), port, ip_address(vip), 80, Protocol(protocol)),
        ).backend
        or ""
        for client, port in asked
    }


SETTINGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "default": ({}, {}),
    "slots": ({"maglev": {"slots": 251}}, {}),
    "seed": ({"maglev": {"seed": 4294967295}}, {}),
    "slots-and-seed": ({"maglev": {"slots": 65537, "seed": 0}}, {}),
    "marks": ({"marks": {"first": 0x70000000, "last": 0x7000FFFF}}, {}),
    "affinity-client": ({}, {"affinity": "client"}),
    "source-hash": ({"maglev": {"seed": 77}}, {"scheduler": "source-hash"}),
}


@pytest.mark.parametrize("settings", SETTINGS)
def test_trace_names_the_backend_of_200_of_200_flows(
    network: Network, tmp_path: Path, settings: str
) -> None:
    top, keys = SETTINGS[settings]
    config = load_config(apply(network, tmp_path, top, **keys)).config
    for family in FAMILIES:
        for protocol in PROTOCOLS:
            answered = ask(network, family, protocol)
            named = traced(config, vip_of(network, family), protocol, answered)
            right = sum(named[flow] == name for flow, name in answered.items())
            print(f"{settings}, IPv{family} {protocol}: {right} of {len(answered)}")
            assert (right, len(answered)) == (FLOWS, FLOWS)
            assert len(set(answered.values())) == 4, "all backends, so that a guess would not do"


def test_slots_and_seed_move_flows_so_trace_cannot_ignore_them(
    network: Network, tmp_path: Path
) -> None:
    choices = []
    for settings in ("default", "slots", "seed"):
        apply(network, tmp_path, SETTINGS[settings][0])
        choices.append(ask(network, 4, "udp"))
    for one, other in ((0, 1), (0, 2), (1, 2)):
        moved = sum(choices[one][flow] != choices[other][flow] for flow in choices[one])
        assert moved > FLOWS / 3


def test_the_command_answers_for_the_applied_document(network: Network, tmp_path: Path) -> None:
    apply(network, tmp_path, {"maglev": {"slots": 509, "seed": 9}})
    for family, protocol in ((4, "tcp"), (4, "udp"), (6, "tcp"), (6, "udp")):
        vip = vip_of(network, family)
        target = f"[{vip}]:80" if family == 6 else f"{vip}:80"
        ((client, port), name), *_ = ask(network, family, protocol, count=1).items()
        asker = f"[{client}]:{port}" if family == 6 else f"{client}:{port}"
        answer = call_tula(
            network.lb, *("trace", target, "--client", asker, "--protocol", protocol, "--json")
        )
        found = json.loads(answer.stdout)
        assert (found["service"], found["backend"]) == ("web", name), found["reason"]


@pytest.mark.parametrize("family", FAMILIES)
def test_flows_follow_weights_1_2_3(network: Network, tmp_path: Path, family: int) -> None:
    weights = {"backend-1": 1, "backend-2": 2, "backend-3": 3}
    backends = {
        name: backends_of(network.backend(name), weight=weight)[name]
        for name, weight in weights.items()
    }
    config = load_config(apply(network, tmp_path, {}, backends=backends)).config
    answered: Asked = {}
    for seed in range(6):
        answered |= ask(network, family, "udp", seed, 500)
    assert answered == traced(config, vip_of(network, family), "udp", answered)
    shares = Counter(answered.values())
    print(f"IPv{family}, weights 1:2:3, {shares.total()} flows: {sorted(shares.items())}")
    assert shares.total() > 2900, "6 times 500 but for flows drawn twice"
    for name, weight in weights.items():
        expected = shares.total() * weight / 6
        # Four standard deviations of so many independent flows.
        allowed = 4 * (expected * (1 - weight / 6)) ** 0.5
        assert abs(shares[name] - expected) < allowed, (name, shares)
