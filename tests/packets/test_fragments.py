"""Fragments: all of a datagram reach the backend of its flow.

::

    client-1               lb                 backend-1, -2   VIP:53  "one"
        │                   │                 backend-3, -4   VIP:54  "two"
    ════╧═══════════════════╧═══════════════════════╧═════════════════════  lan

A datagram's first fragment shows its ports, chooses as its flow does, and is remembered for the
others. Those that come before the first show nothing to choose by: they go to the balancer's
own stack, and the datagram is lost.
"""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.crafted import arrivals, wait_arrivals
from support.packets import FAMILIES, address_of, udp_socket, vip_of, watching
from support.two_services import OURS, PORTS, WAYS, TwoServices, two_services
from tula.lab import Lab, Network, wait_until

pytestmark = pytest.mark.kernel

SIZES = (100, 1400, 1472, 1473, 2000, 3001, 9000, 30000, 60000)
UDP_HEADER = 8
ROOM = {4: 1480, 6: 1448}
"""Bytes of a datagram in one fragment at an MTU of 1500."""
FLOWS = 12


@pytest.fixture(scope="module")
def network() -> Iterator[Network]:
    with Lab() as lab:
        yield two_services(lab)


@pytest.fixture(params=WAYS)
def balanced(request: pytest.FixtureRequest, network: Network, tmp_path: Path) -> TwoServices:
    return TwoServices(network, tmp_path, **WAYS[request.param])


@pytest.fixture
def by_table(network: Network, tmp_path: Path) -> TwoServices:
    return TwoServices(network, tmp_path)


def who_answers(asking: socket.socket, size: int) -> str:
    """One datagram of this size; its content must come back whole."""
    payload = random.Random(size).randbytes(size)
    asking.send(payload)
    name, _, back = asking.recv(65535).partition(b" ")
    assert back == payload
    return name.decode()


def forget_fragments(network: Network) -> None:
    """The client's kernel draws identifications at random: one of the last 30 seconds may be that
    of a crafted datagram."""
    for version in FAMILIES:
        network.lb.run(["nft", "flush", "map", "netdev", "tula", f"frag{version}_65536"])


@pytest.mark.parametrize("family", FAMILIES)
def test_datagrams_of_every_size_are_answered_by_the_flows_backend(
    balanced: TwoServices, family: int
) -> None:
    sizes = random.Random(family)
    used = {}
    for name, port in PORTS.items():
        for number in range(FLOWS):
            with udp_socket(balanced.network.client, family, 30000 + number) as asking:
                asking.connect((vip_of(balanced.network, family), port))
                order = sizes.sample(SIZES, len(SIZES))
                answers = {who_answers(asking, size) for size in order}
            assert len(answers) == 1, f"flow {number} of {name}: {answers}"
            used.setdefault(name, set()).update(answers)
    assert used == OURS
    later = sum((size + UDP_HEADER - 1) // ROOM[family] for size in SIZES)
    assert balanced.crafted.named_counters()["fragments"] == 2 * FLOWS * later


@pytest.mark.parametrize("family", FAMILIES)
def test_flows_held_against_the_hash_keep_their_fragments(
    by_table: TwoServices, family: int
) -> None:
    vip = vip_of(by_table.network, family)
    asking = {}
    for number in range(FLOWS):
        made = by_table.network.client.socket(
            socket.AF_INET6 if family == 6 else socket.AF_INET, socket.SOCK_DGRAM
        )
        made.settimeout(3)
        made.bind(("", 31000 + number))
        made.connect((vip, 53))
        asking[made] = who_answers(made, 100)
    by_table.apply(backend_1=0)
    for made, first in asking.items():
        with made:
            assert {who_answers(made, size) for size in SIZES} == {first}
    assert set(asking.values()) == OURS["one"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_payload_or_a_label_like_another_services_port_means_nothing(
    balanced: TwoServices, family: int
) -> None:
    """Every 16 bits of the payload, and IPv6's flow label, are the other service's port."""
    crafted, backends = balanced.crafted, balanced.network.backends
    tail = b"the end!"
    whole = crafted.udp(family, 40000, 53, b"\0\x36" * 1400 + tail)
    label = {"fl": 0x50036} if family == 6 else {}
    with watching(*backends) as watch:
        crafted.send(*crafted.pieces(family, whole, 7, [1200, 2400], **label))
        arrived = wait_arrivals(watch, backends, b"\0\x36" * 20, 3)
    assert len(arrived) == 1
    assert set(arrived) <= OURS["one"]
    # One that no first fragment came before.
    forget_fragments(balanced.network)
    lonely = crafted.pieces(family, b"\0\x36" * 8 + whole + tail, 8, [1200, 2400], **label)[1:]
    with watching(*backends) as watch:
        crafted.send(*lonely)
        crafted.settle(family, 53)
        assert arrivals(watch, backends, b"\0\x36" * 20) == {}


@pytest.mark.parametrize("family", FAMILIES)
def test_later_fragments_may_come_in_any_order_but_not_before_the_first(
    balanced: TwoServices, family: int
) -> None:
    crafted, backends = balanced.crafted, balanced.network.backends
    whole = crafted.udp(family, 40001, 53, b"order" * 800)
    pieces = crafted.pieces(family, whole, 21, [1000, 2000, 3000])
    forget_fragments(balanced.network)
    with watching(*backends) as watch:
        before = crafted.named_counters()["fragments"]
        crafted.send(pieces[0], pieces[3], pieces[1], pieces[2])
        arrived = wait_arrivals(watch, backends, b"order" * 100, 4)
    assert len(arrived) == 1
    assert crafted.named_counters()["fragments"] == before + 3
    with watching(*backends) as watch:
        again = crafted.pieces(family, whole, 22, [1000, 2000, 3000])
        crafted.send(again[2], again[0], again[1], again[3])
        wait_arrivals(watch, backends, b"order" * 100, 3)
        crafted.settle(family, 53)
        assert set(arrivals(watch, backends, b"order" * 100).values()) == {3}, "all but one"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_datagrams_number_used_again_by_another_flow_follows_that_flow(
    balanced: TwoServices, family: int
) -> None:
    """A client's identifications come round; both services' datagrams share them."""
    crafted, backends = balanced.crafted, balanced.network.backends
    for round in range(3):
        for port, ours in ((53, OURS["one"]), (54, OURS["two"])):
            mark = f"round {round} of {port}".encode()
            whole = crafted.udp(family, 40002, port, mark * 150)
            with watching(*backends) as watch:
                crafted.send(*crafted.pieces(family, whole, 33, [1000]))
                arrived = wait_arrivals(watch, backends, mark * 5, 2)
            assert len(arrived) == 1
            assert set(arrived) <= ours


@pytest.mark.parametrize("family", FAMILIES)
def test_the_balancers_own_fragments_are_its_own(balanced: TwoServices, family: int) -> None:
    own = address_of(balanced.network.lb, family)
    with udp_socket(balanced.network.client, family, 41000) as asking:
        asking.connect((own, 99))
        assert {who_answers(asking, size) for size in SIZES} == {"lb"}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_first_of_eight_bytes_is_enough(balanced: TwoServices, family: int) -> None:
    crafted = balanced.crafted
    whole = crafted.udp(family, 40003, 54, b"small first")
    with watching(*balanced.network.backends) as watch:
        crafted.send(*crafted.pieces(family, whole, 44, [8]))
        wait_until(
            lambda: [
                p
                for host in balanced.network.backends
                for p in watch.packets(host, outgoing=True)
                if p.dport == 40003
            ],
            what="the answer",
        )
