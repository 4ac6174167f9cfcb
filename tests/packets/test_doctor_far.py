"""Faults of tunnels are found by id, fixed as printed, and gone.

::

    client ── router ════ far ══╤════════════╤
                │           backend-1    backend-2   (VIPs on lo, tunnel devices)
    ════════════╧══════╤═══  lan
                       lb
                  VIP 10.9.0.100, fd09::100
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.doctor import Fault, Setup, check_found, l3_setup
from support.tunnelled import LINK_KINDS
from tula.lab import Lab

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600)]


def _sh(command: str) -> object:
    return lambda setup: setup.first.run(["sh", "-e", "-c", command])


def _devices(setup: Setup) -> list[str]:
    """The names of the backend's devices."""
    return [name for name in setup.first.interfaces() if name.startswith("tula-")]


def _on_devices(command: str) -> object:
    """A command with DEVICE for each of them."""

    def make(setup: Setup) -> None:
        for name in _devices(setup):
            setup.first.run(["sh", "-e", "-c", command.replace("DEVICE", name)])

    return make


_other_id = _on_devices(
    "ip link delete DEVICE; ip link add DEVICE address 02:54:0a:07:00:0b type vxlan id 77 "
    "dstport 4789 local 10.7.0.11 nolearning; ip link set DEVICE up"
)
_no_devices = _on_devices("ip link delete DEVICE")
_strict = _on_devices("sysctl -w net.ipv4.conf.DEVICE.rp_filter=1")


def _narrow(setup: Setup) -> None:
    """The router's link to the backends passes no more than 1,400 bytes, and says so."""
    _mtu(setup, 1400)


def _mtu(setup: Setup, mtu: int) -> None:
    router = setup.network.router
    assert router is not None
    router.run(["ip", "link", "set", "eth2", "mtu", str(mtu)])


def _filter(setup: Setup) -> None:
    chain = "chain in { type filter hook input priority 0; udp dport 4789 drop; }"
    setup.nft(setup.first, f"table inet broken {{\n{chain}\n}}\n")


def _no_filter(setup: Setup) -> None:
    setup.first.run(["nft", "delete", "table", "inet", "broken"])


def _no_vip_4(setup: Setup) -> None:
    """Where a loose filter has no address it refuses all of IPv4."""
    for name in ("lo", *_devices(setup)):
        setup.first.remove_address(name, "10.9.0.100/32")


def _unlisted(setup: Setup) -> None:
    setup.top["load_balancers"] = {"lb4": "10.9.0.9", "lb6": "fd09::9"}
    setup.apply()


def _listed(setup: Setup) -> None:
    setup.top["load_balancers"] = {"lb4": "10.9.0.2", "lb6": "fd09::2"}
    setup.apply()


def _output(setup: Setup) -> None:
    chain = "chain out { type filter hook output priority 0; udp dport 4789 drop; }"
    setup.nft(setup.lb, f"table inet broken {{\n{chain}\n}}\n")


def _no_output(setup: Setup) -> None:
    setup.lb.run(["nft", "delete", "table", "inet", "broken"])


OTHER_KINDS = [("gue", 6), *([("ipip", 4), ("gre", 4)] if os.environ.get("TULA_SOAK") else [])]
"""Half a minute each in the emulated VM: the others are for soak."""

FAULTS = [
    Fault("no-device", _no_devices, "tunnel-missing"),
    Fault("other-id", _other_id, "tunnel-missing", certain=False),
    Fault(
        "other-mac",
        _on_devices("ip link set DEVICE address 02:00:00:00:00:77"),
        "tunnel-missing",
        certain=False,
    ),
    Fault("device-down", _on_devices("ip link set DEVICE down"), "tunnel-missing", certain=None),
    Fault("rp-filter", _strict, "rp-filter", certain=False),
    Fault("vip-missing", _sh("ip address del fd09::100/128 dev lo"), "vip-missing", certain=False),
    Fault("vip-4-missing", _no_vip_4, "rp-filter", certain=False),
    Fault("no-clamp", _sh("nft delete table inet tula_backend"), "mss-not-clamped"),
    Fault("source-filter", _filter, "tunnel-missing", by_hand=_no_filter, certain=False),
    Fault(
        "narrow-router",
        _narrow,
        "path-mtu",
        by_hand=lambda setup: _mtu(setup, 1500),
    ),
    Fault("not-listed", _unlisted, "not-a-load-balancer", "here", by_hand=_listed,
          also=frozenset({"load-balancer-unreachable"})),
    Fault("own-firewall", _output, "foreign-chain", "eth0", by_hand=_no_output),
]  # fmt: skip
BY_ID = {fault.id: fault for fault in FAULTS}


@pytest.mark.parametrize("fault", FAULTS, ids=str)
def test_found_fixed_and_gone(lab: Lab, tmp_path: Path, fault: Fault) -> None:
    check_found(l3_setup(lab, tmp_path), [fault])


@pytest.mark.parametrize("name", ["no-device", "rp-filter", "no-clamp"])
def test_over_ipv6(lab: Lab, tmp_path: Path, name: str) -> None:
    check_found(l3_setup(lab, tmp_path, outer=6), [BY_ID[name]])


@pytest.mark.parametrize(
    "pair", [("vip-missing", "no-clamp"), ("rp-filter", "no-clamp")], ids="+".join
)
def test_two_at_once(lab: Lab, tmp_path: Path, pair: tuple[str, str]) -> None:
    check_found(l3_setup(lab, tmp_path), [BY_ID[name] for name in pair])


@pytest.mark.parametrize(
    ("tunnel", "outer"),
    [pytest.param(*kind, marks=pytest.mark.link_kinds(*LINK_KINDS[kind])) for kind in OTHER_KINDS],
)
def test_devices_of_other_kinds(lab: Lab, tmp_path: Path, tunnel: str, outer: int) -> None:
    """Their devices are deleted, and recreated by the printed commands."""
    check_found(
        l3_setup(lab, tmp_path, tunnel, outer),
        [Fault("no-device", _no_devices, "tunnel-missing", certain=None)],
    )


def _source_filter(setup: Setup) -> None:
    assert setup.network.router is not None
    chain = "chain f { type filter hook forward priority 0; ip saddr 10.9.0.100 drop; }"
    setup.nft(setup.network.router, f"table inet broken {{\n{chain}\n}}\n")


def _no_source_filter(setup: Setup) -> None:
    assert setup.network.router is not None
    setup.network.router.run(["nft", "delete", "table", "inet", "broken"])


def test_a_source_filter_on_the_path_is_guessed(lab: Lab, tmp_path: Path) -> None:
    """Answers from the VIP are lost behind the backend, which looks like several things there."""
    setup = l3_setup(lab, tmp_path)
    _source_filter(setup)
    found = setup.examine()
    assert {finding["where"] for finding in found} == {"backend-1", "backend-2"}
    assert {finding["id"] for finding in found} <= {"vip-missing", "rp-filter"}
    assert not any(finding["certain"] for finding in found)
    _no_source_filter(setup)
    assert setup.examine() == []
