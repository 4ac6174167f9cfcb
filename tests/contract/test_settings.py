"""Sysctls, and the rules and routes of probes: the fakes and the kernel agree."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from support.snapshots import snapshot
from tula.dataplane.nft.ids import PROBE_MARK
from tula.kernel.fake import FakeProbeRoute, FakeSysctls
from tula.kernel.probe_route import PREFERENCE, TABLE, KernelProbeRoute, ProbeRoute
from tula.kernel.sysctls import KernelSysctls, Sysctls
from tula.lab import Host, Lab
from tula.model.errors import KernelError
from tula.plan.probe_sysctls import setting, settings_to_read

LINKS = ["lo", "eth0", "eth0.7"]
FILTER = setting("eth0.7", "rp_filter")


class Machine(NamedTuple):
    sysctls: Sysctls
    route: ProbeRoute


@pytest.fixture
def host() -> Iterator[Host]:
    """A machine with lo, eth0, and an interface whose name holds a dot."""
    with Lab() as lab:
        made = lab.host("lb", lab.switch(), "10.0.0.2/16")
        lab.connect(made, lab.switch("second"), ifname="eth0.7")
        made.write_sysctl(FILTER, 0)
        with made.enter():
            yield made


@pytest.fixture(params=["fake", pytest.param("kernel", marks=pytest.mark.kernel)])
def machine(request: pytest.FixtureRequest) -> Machine:
    if request.param == "fake":
        values = dict.fromkeys(settings_to_read(LINKS), "0")
        return Machine(FakeSysctls(values), FakeProbeRoute())
    request.getfixturevalue("host")
    return Machine(KernelSysctls(), KernelProbeRoute())


def test_a_setting_is_read_and_written_whatever_its_interface_is_called(machine: Machine) -> None:
    assert machine.sysctls.read(FILTER) == "0"
    machine.sysctls.write(FILTER, "2")
    assert machine.sysctls.read(FILTER) == "2"


def test_what_is_not_there_reads_as_none_and_is_not_made(machine: Machine) -> None:
    name = setting("nowhere", "rp_filter")
    assert machine.sysctls.read(name) is None
    with pytest.raises(KernelError, match=f"cannot set sysctl {name} to 1: No such file"):
        machine.sysctls.write(name, "1")


def test_rules_and_routes_come_once_and_go(machine: Machine) -> None:
    assert machine.route.ensure([4, 6])
    assert not machine.route.ensure([6, 4])
    assert machine.route.ensure([6])
    assert not machine.route.ensure([6])
    assert machine.route.remove()
    assert not machine.route.remove()


def listing(host: Host) -> str:
    held = snapshot(host)
    return held["rules"] + held["routes"]


@pytest.mark.kernel
def test_in_the_kernel_they_say_whose_they_are(host: Host) -> None:
    KernelProbeRoute().ensure([4, 6])
    shown = listing(host)
    # iproute2 6.15 has a name for 84.
    shown = re.sub(r"proto ovn\b", "proto 84", shown)
    rule = f"{PREFERENCE}:\tfrom all fwmark {PROBE_MARK:#x} iif lo lookup {TABLE} proto 84"
    assert shown.count(rule) == 2
    assert shown.count(f"local default dev lo table {TABLE} proto 84") == 2


@pytest.mark.kernel
def test_what_was_changed_is_repaired_and_others_things_stay(host: Host) -> None:
    foreign = [
        ["ip", "rule", "add", "pref", "84", "fwmark", "0x54756c61", "lookup", "99"],
        ["ip", "-6", "rule", "add", "pref", "84", "fwmark", "1", "lookup", "21621"],
        ["ip", "route", "add", "10.99.0.0/16", "dev", "eth0", "table", "21621"],
        ["ip", "route", "add", "10.98.0.0/16", "dev", "eth0", "proto", "84"],
    ]
    for command in foreign:
        host.run(command)
    before = listing(host)
    route = KernelProbeRoute()
    route.ensure([4, 6])
    good = listing(host)
    wrong = [
        ["ip", "rule", "add", "pref", "7", "fwmark", "9", "lookup", "21621", "protocol", "84"],
        ["ip", "-6", "rule", "del", "pref", "84", "lookup", "21621", "protocol", "84"],
        ["ip", "route", "del", "local", "default", "dev", "lo", "table", "21621"],
        ["ip", "-6", "route", "add", "fd33::/64", "dev", "lo", "table", "21621", "proto", "84"],
    ]
    for command in wrong:
        host.run(command)
        assert listing(host) != good
        assert route.ensure([4, 6])
        assert sorted(listing(host).splitlines()) == sorted(good.splitlines())
    assert route.remove()
    assert listing(host) == before
