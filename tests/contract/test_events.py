"""What the kernel tells of changes, and what it does not.

::

        lb  eth0 10.0.0.2/16, 2001:db8::2/64      peer  eth0 10.0.0.3/16
              │                                     │
        ══════╧═════════════════════════════════════╧══════  switch
"""

from __future__ import annotations

import select
import socket
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from tula.dataplane.nft.ruleset import Kind, MapName
from tula.dataplane.nft.transaction import AddElements, AddMap, AddTable, DeleteElements
from tula.kernel.events import Events, EventSource, KernelEvents
from tula.kernel.fake import FakeEvents
from tula.kernel.network import KernelNetwork
from tula.kernel.nft_reader import NftReader
from tula.kernel.nftables import KernelNftables
from tula.lab import Host, Lab, wait_until

SLOTS = MapName(Kind.SLOTS, 65537, 1)
FLOWS = MapName(Kind.UDP4, 1024)


def until_quiet(events: KernelEvents, seconds: float = 0.3) -> Events:
    """All that is told until nothing was for so long."""
    seen = Events()
    while select.select(events.filenos(), [], [], seconds)[0]:
        new = events.drain()
        seen = Events(
            seen.network or new.network,
            seen.generations + new.generations,
            seen.lost or new.lost,
        )
    return seen


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        switch = made.switch()
        made.host("lb", switch, "10.0.0.2/16", "2001:db8::2/64")
        made.host("peer", switch, "10.0.0.3/16")
        made.ready()
        yield made


@pytest.fixture
def lb(lab: Lab) -> Host:
    return lab["lb"]


@pytest.fixture
def events(lb: Host) -> Iterator[KernelEvents]:
    """Listening, and told of all that the making of the network left to tell."""
    with lb.enter(), KernelEvents() as made:
        until_quiet(made)
        yield made


def test_the_fake_tells_what_it_was_told() -> None:
    fake: EventSource = FakeEvents()
    assert isinstance(fake, FakeEvents)
    assert fake.drain() == Events()
    assert not Events()
    fake.happen(network=True)
    fake.happen(generation=7)
    fake.happen(generation=8)
    assert select.select(fake.filenos(), [], [], 0)[0]
    assert fake.drain() == Events(True, (7, 8))
    assert not select.select(fake.filenos(), [], [], 0)[0]
    fake.happen(lost=True)
    assert fake.drain() == Events(lost=True)


def add_device(lb: Host) -> None:
    # The lab's own kernel has no tunnels; a VXLAN device is one as well as any.
    lb.run(["ip", "link", "add", "tula-t", "type", "vxlan", "id", "7", "dstport", "4789"])


@pytest.mark.kernel
@pytest.mark.parametrize(
    ("before", "change"),
    [
        (None, lambda lb: lb.set_link("eth0", False)),
        (lambda lb: lb.set_link("eth0", False), lambda lb: lb.set_link("eth0", True)),
        (None, lambda lb: lb.set_cable("eth0", False)),
        (None, lambda lb: lb.set_mac("eth0", "02:00:00:00:00:99")),
        (None, lambda lb: lb.remove_address("eth0", "10.0.0.2/16")),
        (None, lambda lb: lb.remove_address("eth0", "2001:db8::2/64")),
        (None, lambda lb: lb.add_route("192.0.2.0/24", "10.0.0.3")),
        (None, lambda lb: lb.add_route("2001:db8:9::/48", "2001:db8::3")),
        (None, add_device),
        (add_device, lambda lb: lb.run(["ip", "link", "delete", "tula-t"])),
        (add_device, lambda lb: lb.run(["ip", "link", "set", "tula-t", "mtu", "1400"])),
        (None, lambda lb: lb.run(["ip", "-4", "rule", "add", "pref", "84", "lookup", "7"])),
        (None, lambda lb: lb.run(["ip", "-6", "rule", "add", "pref", "84", "lookup", "7"])),
        (None, lambda lb: lb.write_sysctl("net/ipv4/conf/eth0/rp_filter", 2)),
        (None, lambda lb: lb.write_sysctl("net/ipv4/conf/all/rp_filter", 1)),
    ],
    ids=[
        *("link-down", "link-up", "cable-out", "mac", "address4-gone", "address6-gone"),
        *("route4", "route6", "device-made", "device-gone", "mtu"),
        *("rule4", "rule6", "rp_filter", "rp_filter-of-all"),
    ],
)
def test_a_change_of_the_network_is_told(
    events: KernelEvents,
    lb: Host,
    before: Callable[[Host], object] | None,
    change: Callable[[Host], object],
) -> None:
    if before is not None:
        before(lb)
        until_quiet(events)
    change(lb)
    assert until_quiet(events) == Events(network=True)


@pytest.mark.kernel
def test_every_change_of_nftables_is_told(events: KernelEvents, lb: Host) -> None:
    kernel = KernelNftables()
    at = kernel.generation()
    kernel.run((AddTable(), AddMap(SLOTS)))
    kernel.run((AddElements(SLOTS, {0: 1}),))
    assert until_quiet(events) == Events(generations=(at + 1, at + 2))
    assert kernel.generation() == at + 2
    lb.run(["nft", "flush", "map", "netdev", "tula", str(SLOTS)])
    assert until_quiet(events) == Events(generations=(at + 3,))
    lb.run(["nft", "add", "table", "inet", "someone"])
    lb.run(["nft", "delete", "table", "netdev", "tula"])
    lb.run(["nft", "flush", "ruleset"])
    assert until_quiet(events) == Events(generations=(at + 4, at + 5, at + 6))
    assert kernel.generation() == at + 6


@pytest.mark.kernel
def test_a_large_transaction_is_one_event(events: KernelEvents) -> None:
    kernel = KernelNftables()
    kernel.run((AddTable(), AddMap(SLOTS)))
    until_quiet(events)
    at = kernel.generation()
    kernel.run((AddElements(SLOTS, dict.fromkeys(range(65537), 1)),))
    keys = tuple(range(65537))
    kernel.run((DeleteElements(SLOTS, keys), AddElements(SLOTS, dict.fromkeys(keys, 2))))
    assert until_quiet(events) == Events(generations=(at + 1, at + 2))


@pytest.mark.kernel
def test_what_is_done_while_muted_is_reported_at_its_end(events: KernelEvents, lb: Host) -> None:
    kernel = KernelNftables()
    at = kernel.generation()
    with events.muted():
        kernel.run((AddTable(), AddMap(SLOTS)))
        kernel.run((AddElements(SLOTS, {0: 1}),))
        assert until_quiet(events) == Events()
    assert until_quiet(events) == Events(generations=(at + 2,))
    with pytest.raises(ValueError, match="inside"), events.muted():
        raise ValueError("inside")
    assert until_quiet(events) == Events(generations=(at + 2,))
    lb.run(["nft", "flush", "ruleset"])
    assert until_quiet(events) == Events(generations=(at + 3,))


@pytest.mark.kernel
def test_packets_are_no_events(events: KernelEvents, lab: Lab, lb: Host) -> None:
    """Nor are neighbours that come, and entries that are old."""
    kernel = KernelNftables()
    kernel.run((AddTable(), AddMap(FLOWS)))
    rules = (
        'add chain netdev tula in { type filter hook ingress device "eth0" priority 0; }\n'
        "add rule netdev tula in meta l4proto 17 meta mark set 7 "
        f"add @{FLOWS} {{ @nh,96,32 . @nh,160,16 . @nh,128,32 . @nh,176,16 timeout 50ms "
        ": meta mark }\n"
    )
    lb.run(["nft", "-f", "-"], input=rules)
    until_quiet(events)
    at = kernel.generation()
    with lab["peer"].socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        for port in range(1000, 1100):
            sender.sendto(b"x", ("10.0.0.2", port))

    def held() -> int:
        with NftReader() as reader:
            return sum(1 for _ in reader.elements("tula", str(FLOWS)))

    wait_until(lambda: held() > 0)
    wait_until(lambda: held() == 0)
    assert until_quiet(events) == Events()
    assert kernel.generation() == at


@pytest.mark.kernel
def test_what_is_told_anew_and_is_the_same_is_no_event(events: KernelEvents, lb: Host) -> None:
    renew = ["ip", "address", "change", "2001:db8::7/64", "dev", "eth0", "nodad", "valid_lft"]
    lb.run([*renew, "1000", "preferred_lft", "1000"])
    assert until_quiet(events) == Events(network=True)
    lb.run([*renew, "2000", "preferred_lft", "2000"])
    told = until_quiet(events)
    assert told == Events()


@pytest.mark.kernel
def test_more_than_can_wait_is_said_to_be_lost(events: KernelEvents, lb: Host) -> None:
    """And then it goes on."""
    routes = [f"route add 198.18.{n >> 8}.{n & 255}/32 dev eth0" for n in range(12000)]
    lb.run(["ip", "-batch", "-"], input="\n".join(routes))
    told = events.drain()
    assert told.lost
    assert told.network
    lb.set_link("eth0", False)
    assert until_quiet(events).network


def test_the_mac_addresses_of_those_that_matter(lab: Lab, lb: Host, events: KernelEvents) -> None:
    peer, mac = lab["peer"], "02:54:75:6c:61:01"
    address = ip_address("10.0.0.3")
    lb.run(["ping", "-c1", "-W5", str(address)])
    until_quiet(events)
    events.watch_neighbours([ip_address("10.0.0.9")])
    peer.run(["ip", "link", "set", "eth0", "address", mac])
    peer.run(["ping", "-c1", "-W5", "10.0.0.2"])
    assert not until_quiet(events).network, "another neighbour"
    events.watch_neighbours([address])
    peer.run(["ip", "link", "set", "eth0", "address", mac.replace("01", "02")])
    peer.run(["ping", "-c1", "-W5", "10.0.0.2"])
    assert until_quiet(events).network
    with lb.enter():
        assert KernelNetwork().macs([address])[address].hex(":") == mac.replace("01", "02")
