"""Any call of any fake can be made to fail."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import pytest

from support.builders import FakeMachine, make_config
from tula.dataplane.nft.ruleset import Kind, MapName
from tula.dataplane.nft.transaction import AddTable
from tula.dataplane.nft.tunnel_devices import Tunnels
from tula.dataplane.nft.tunnel_diff import TunnelChange
from tula.kernel.failures import ANY
from tula.model.errors import KernelError
from tula.model.host import Link, OwnedAddress

VIP = ip_address("10.0.0.100")
OWNED = OwnedAddress(VIP, "eth0")
SYSCTL = "net/ipv4/conf/all/rp_filter"
MAP = MapName(Kind.NEXTHOP4, 4)
CALLS: dict[str, Callable[[FakeMachine], object]] = {
    "nftables.exists": lambda m: m.nftables.exists(),
    "nftables.observe": lambda m: m.nftables.observe(),
    "nftables.counts": lambda m: m.nftables.counts(),
    "nftables.counts_of": lambda m: m.nftables.counts_of(MAP, []),
    "nftables.named_counts": lambda m: m.nftables.named_counts(),
    "nftables.entries": lambda m: m.nftables.entries(),
    "nftables.connections": lambda m: m.nftables.connections(1),
    "nftables.mark_of": lambda m: m.nftables.mark_of(MAP, b""),
    "nftables.generation": lambda m: m.nftables.generation(),
    "nftables.run": lambda m: m.nftables.run((AddTable(),)),
    "network.view": lambda m: m.network.view(()),
    "network.ssh_ports": lambda m: m.network.ssh_ports(),
    "network.add_address": lambda m: m.network.add_address(OWNED),
    "network.remove_address": lambda m: m.network.remove_address(OWNED),
    "network.resolve": lambda m: m.network.resolve(()),
    "announcer.announce": lambda m: m.announcer.announce(VIP, Link("eth0", 2)),
    "tunnels.missing": lambda m: m.tunnels.missing(()),
    "tunnels.prepare": lambda m: m.tunnels.prepare(TunnelChange(), Tunnels()),
    "tunnels.finish": lambda m: m.tunnels.finish(TunnelChange()),
    "probe_route.ensure": lambda m: m.probe_route.ensure([4]),
    "probe_route.remove": lambda m: m.probe_route.remove(),
    "sysctls.read": lambda m: m.sysctls.read(SYSCTL),
    "sysctls.write": lambda m: m.sysctls.write(SYSCTL, "0"),
}


@pytest.fixture
def machine(tmp_path: Path) -> FakeMachine:
    made = FakeMachine(tmp_path, make_config())
    made.sysctls.values[SYSCTL] = "1"
    return made


@pytest.mark.parametrize("call", CALLS)
def test_every_call_until_it_is_allowed(machine: FakeMachine, call: str) -> None:
    machine.failures.refuse(call, "no")
    for _ in range(2):
        with pytest.raises(KernelError, match=r"^no$"):
            CALLS[call](machine)
    for other in CALLS.keys() - {call}:
        CALLS[other](machine)
    machine.failures.allow(call)
    CALLS[call](machine)
    assert machine.failures.calls[call] == 3


@pytest.mark.parametrize("call", CALLS)
def test_the_second_call_from_now(machine: FakeMachine, call: str) -> None:
    machine.failures.refuse_once(call, 2)
    CALLS[call](machine)
    with pytest.raises(KernelError, match="busy"):
        CALLS[call](machine)
    CALLS[call](machine)


def test_whatever_comes_third(machine: FakeMachine) -> None:
    machine.failures.refuse_once(ANY, 3)
    machine.nftables.exists()
    machine.network.view(())
    with pytest.raises(KernelError):
        machine.announcer.announce(VIP, Link("eth0", 2))
    assert not machine.announcer.announced
    machine.announcer.announce(VIP, Link("eth0", 2))
    machine.failures.refuse()
    with pytest.raises(KernelError):
        machine.nftables.exists()
    machine.failures.allow()
    machine.nftables.exists()


def test_what_fails_after_it_was_done(machine: FakeMachine) -> None:
    machine.failures.refuse_once("nftables.run", done=True)
    with pytest.raises(KernelError):
        machine.nftables.run((AddTable(),))
    assert machine.nftables.exists()
