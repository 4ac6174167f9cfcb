"""An upgrade from the release before: its table is of schema 1, and traffic does not notice.

::

    client-1 (500 connections)      lb           backend-1 … 3
         │                          │                │   (VIPs on lo)
    ═════╧══════════════════════════╧════════════════╧═════  lan
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import yaml

from support.packets import FAMILIES, vip_of
from support.snapshots import marks, observe
from tula.dataplane.nft.recover import counts_by_id, recover_ids
from tula.dataplane.nft.ruleset import Foreign
from tula.dataplane.nft.schema import SCHEMA, schema_of
from tula.kernel.nftables import KernelNftables
from tula.lab import Host, Lab, Network, TcpFlow, ask_all, flat, serve_tcp, tcp_flows
from tula.model.stats import Count

pytestmark = pytest.mark.kernel

OLD = Path(__file__).parent / "schema_1"
HASHED, ROUND_ROBIN = 80, 81
PORTS = range(30000, 30125)
"""Of each IP version and service: 500 connections in all."""


def counts(lb: Host) -> dict[int, Count]:
    """By backend id, whatever the maps are called."""
    with lb.enter():
        return counts_by_id(KernelNftables().counts())


def entries(lb: Host) -> dict[str, int | None]:
    """How many each map that packets fill holds; None where the kernel does not tell."""
    with lb.enter():
        found = KernelNftables().entries()
    return {name: number for name, number in found.items() if name.startswith("tcp")}


class Connections:
    """Open connections to both services, and who answers them."""

    def __init__(self, network: Network) -> None:
        self._opened: dict[tuple[int, int], list[TcpFlow]] = {
            (family, port): tcp_flows(network.client, vip_of(network, family), port, PORTS)
            for family in FAMILIES
            for port in (HASHED, ROUND_ROBIN)
        }

    def answers(self) -> dict[tuple[int, int, int], str]:
        """By IP version, service port and client port; LabError for one without an answer."""
        return {
            (*which, client_port): name
            for which, opened in self._opened.items()
            for client_port, name in ask_all(opened).items()
        }


def test_500_connections_ids_and_counts_go_on(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab)
    lb = network.lb
    for backend in network.backends:
        serve_tcp(backend, [HASHED, ROUND_ROBIN])
    lb.run(["nft", "-f", "-"], input=(OLD / "table.nft").read_text())
    network.announce()
    connections = Connections(network)
    before = connections.answers()
    assert len(before) == 500
    assert set(before.values()) == {"backend-1", "backend-2", "backend-3"}
    old, old_counts, old_entries = observe(lb), counts(lb), entries(lb)
    assert old is not None
    assert schema_of(old.counters) == 1
    assert sum(count.packets for count in old_counts.values()) > 1000

    with ThreadPoolExecutor(1) as pool:
        applying = pool.submit(lb.tula, "apply", "-f", OLD / "tula.yaml", "--json")
        while not applying.done():
            assert connections.answers() == before
        assert json.loads(applying.result().stdout)["changed"]
    assert connections.answers() == before

    new = observe(lb)
    assert new is not None
    assert schema_of(new.counters) == SCHEMA
    assert recover_ids(new) == recover_ids(old)
    assert marks(lb)["hashed", "10.9.0.12"] == 0x70005
    now = counts(lb)
    assert now.keys() == old_counts.keys()
    for mark, count in now.items():
        assert count.packets >= old_counts[mark].packets
        assert count.bytes >= old_counts[mark].bytes
    for name, number in entries(lb).items():
        assert number is None or number >= (old_entries[name] or 0) >= 250, name
    assert {"via4_1024", "via6_1024"} <= old.maps.keys() - new.maps.keys()
    assert "turns_1_3" in old.foreign.maps
    assert new.foreign == Foreign()
    assert not json.loads(lb.tula("apply", "-f", OLD / "tula.yaml", "--json").stdout)["changed"]

    # By its entry, not by chance: neither hash nor round robin chooses a drained backend.
    configuration = yaml.safe_load((OLD / "tula.yaml").read_text())
    configuration["services"]["hashed"]["backends"]["backend-1"]["weight"] = 0
    configuration["services"]["round-robin"]["backends"]["backend-1"]["weight"] = 0
    drained = tmp_path / "tula.yaml"
    drained.write_text(yaml.safe_dump(configuration))
    lb.tula("apply", "-f", drained)
    assert connections.answers() == before
