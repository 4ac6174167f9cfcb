"""What somebody altered in Tula's table by hand, apply puts right.

::

        lb  VIP 10.9.0.100, fd09::100        backend-1 … 3
        │                                    │   (VIPs on lo)
    ════╧════════════════════════════════════╧═════  lan
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from support.in_process import InProcess
from support.lab_configurations import service_of, write_config
from support.snapshots import marks, pieces
from tula.lab import Lab, Network, flat

pytestmark = pytest.mark.kernel


@pytest.fixture
def network(lab: Lab) -> Network:
    return flat(lab, clients=0)


@pytest.fixture
def configuration(network: Network, tmp_path: Path) -> Path:
    """web on TCP 80, on both VIPs, served by all three."""
    return write_config(tmp_path / "tula.yaml", {"web": service_of(network)})


TABLE = "netdev tula"
ALTERED = {
    "a slot is gone": "delete element {t} slots_1_4093 {{ 7 }}",
    "a slot names another": "delete element {t} slots_1_4093 {{ 7 }}; "
    "add element {t} slots_1_4093 {{ 7 : 999 }}",
    "a VIP is not dispatched": "delete element {t} service_port4_1024 {{ 10.9.0.100 . tcp . 80 }}",
    "a port more is dispatched": "add element {t} service_port4_1024 "
    "{{ 10.9.0.100 . tcp . 22 : goto service4.web }}",
    "a VIP goes to another chain": "delete element {t} service_port6_1024 "
    "{{ fd09::100 . tcp . 80 }}; add element {t} service_port6_1024 "
    "{{ fd09::100 . tcp . 80 : goto service4.web }}",
    "a backend is gone": "delete element {t} nexthop4_1024 {{ 0x00010002 }}",
    "a backend is another's": "delete element {t} nexthop4_1024 {{ 0x00010002 }}; "
    'add element {t} nexthop4_1024 {{ 0x00010002 comment "api" : 10.9.0.12 }}',
    "a rule is edited": "replace rule {t} service4.web handle {h} counter accept",
    "a rule is added": "insert rule {t} service4.web accept",
    "rules are gone": "flush chain {t} service6.web",
    "the base chain is gone": "delete chain {t} in.eth0",
    "chains are added": "add chain {t} mine; add chain {t} yours; add rule {t} mine jump yours",
    "a set and a counter are added": "add set {t} mine {{ type mark; }}; add counter {t} mine; "
    "add element {t} mine {{ 7 }}",
}


@pytest.mark.parametrize("commands", ALTERED.values(), ids=ALTERED.keys())
def test_what_was_altered_is_put_right(
    network: Network, configuration: Path, commands: str
) -> None:
    lb, tula = network.lb, InProcess(network.lb)
    tula.apply(configuration)
    listed = pieces(lb)
    rule = re.search(
        r"jhash @nh,96,32 .* handle (\d+)",
        lb.run(["nft", "-a", "list", "table", *TABLE.split()]).stdout,
    )
    assert rule
    lb.run(["nft", "-f", "-"], input=commands.format(t=TABLE, h=rule[1]).replace("; ", "\n"))
    assert pieces(lb) != listed
    assert tula.apply(configuration)
    assert pieces(lb) == listed
    assert not tula.apply(configuration)


def test_a_backend_that_was_sent_elsewhere(network: Network, configuration: Path) -> None:
    """The kernel's word counts for ids, so the backend gets another one, and its packets."""
    lb, tula = network.lb, InProcess(network.lb)
    tula.apply(configuration)
    addresses = {who[1] for who in marks(lb)}
    element = '{ 0x00010002 comment "web" : 10.9.0.99 }'
    lines = [f"delete element {TABLE} nexthop4_1024 {{ 0x00010002 }}"]
    lb.run(
        ["nft", "-f", "-"],
        input="\n".join([*lines, f"add element {TABLE} nexthop4_1024 {element}"]),
    )
    assert {who[1] for who in marks(lb)} != addresses
    tula.apply(configuration)
    assert {who[1] for who in marks(lb)} == addresses
    assert not tula.apply(configuration)
