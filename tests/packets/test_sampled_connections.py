"""A large table of connections is counted by a sample, which packets keep as they keep the table.

::

    client-1 (200 flows at a time)      lb           backend-1 … 4
         │                              │                │   (VIPs on lo)
    ═════╧══════════════════════════════╧════════════════╧═════  lan
"""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from support.packets import FAMILIES, PROTOCOLS
from support.serving import Serving
from tula.dataplane.nft.lookup3 import slot_of
from tula.kernel.nft_reader import NftReader
from tula.lab import wait_until

pytestmark = pytest.mark.kernel

PORTS = range(36000, 36200)
SEED, ONE_IN = 0x73616D70, 4


def sampled(serving: Serving, family: int) -> int:
    """Entries of the sample."""
    with serving.lb.enter(), NftReader() as reader:
        return sum((reader.marks_held("tula", f"sample{family}_131072", 1e12) or {}).values())


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_sample_is_of_the_flows_that_the_table_holds(
    serving: Serving, family: int, protocol: str
) -> None:
    serving.web["scheduler"] = "least-connections"
    serving.configuration["connections"] = {"size": 131_072}
    serving.apply()
    client = ip_address(serving.address(family))
    of_sample = [port for port in PORTS if not slot_of(client, port, SEED, ONE_IN)]
    assert 30 < len(of_sample) < 70
    if protocol == "udp":
        first = serving.udp(family, PORTS)
        assert sampled(serving, family) == len(of_sample)
        assert serving.udp(family, PORTS) == first, "known by now, and refreshed"
        assert sampled(serving, family) == len(of_sample)
        return
    flows = serving.connect(family, PORTS)
    wait_until(lambda: sampled(serving, family) == len(of_sample), what="every SYN")
    for flow in flows:
        flow.close()
    wait_until(lambda: not sampled(serving, family), what="every FIN")


def test_there_is_none_where_nobody_needs_it(serving: Serving) -> None:
    listed = serving.lb.run(["nft", "list", "table", "netdev", "tula"]).stdout
    assert "sample" not in listed
