"""Faults between balancers: of VRRP's adverts, of rules that drop them, of VIPs on both and none.

::

    client ── router ══╤══════════════╤══════════════╤══════════════╤══  lan
                      lb1            lb2        backend-1, -2     stranger
                  10.9.0.2       10.9.0.3
                  fd09::2        fd09::3        VIP 10.9.0.100, fd09::100

Adverts come from a sender that says what the test wants, and VIPs are put where it wants them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from support.advertiser import Advertiser, advert
from support.doctor import Setup
from support.in_process import call_tula
from support.lab_configurations import service_of
from tula.lab import Host, Lab, pair, wait_until
from tula.lab.cluster import Cluster, address_in

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]

_OF_ENGINES = {
    "engine-not-running",
    "drift",
    "peers-unknown",
    "flows-not-taken",
    "no-health-checks",
}
"""Here nobody runs keepalived or the daemon, and lb2 has no configuration."""
_GROUPS = {4: "224.0.0.18", 6: "ff02::12"}
_ANCHORS = {4: "169.254.84.84", 6: "fe80::5654:54"}


class PairSetup(Setup):
    """Two balancers that know each other by one IP version, seen from lb1."""

    network: Cluster

    def __init__(self, version: int, path: Any) -> None:
        lab = Lab()
        lab.__enter__()
        self.lab, self.version = lab, version
        network = pair(lab, backends=1)
        prefix = {4: "10.9.", 6: "fd09::"}[version]
        self.at = {lb.name: address_in(prefix, lb) for lb in network.lbs}
        super().__init__(
            network,
            path / "tula.yaml",
            {"web": service_of(network)},
            load_balancers=self.at,
            high_availability={"vrrp": {"id": 84}},
        )
        self.serve(udp=())
        self.stranger = lab.host("stranger", network.lan, "10.9.0.9/16", "fd09::9/64")
        lab.ready()
        self.apply()
        self.lb2 = network.lbs[1]
        self.end_keepalived()

    def end_keepalived(self) -> None:
        """The test says what is advertised and who has the VIPs; lb2 has never had one."""
        wait_until(lambda: "fd09::100" in self.lb.addresses("eth0"), what="the VIPs")
        self.lb.kill("keepalived")
        wait_until(lambda: not self.lb.processes("keepalived"), what="no keepalived")
        for vip in ("10.9.0.100/32", "fd09::100/128"):
            # It may have taken them along: its child hears that the parent has died.
            self.lb.run(["ip", "address", "del", vip, "dev", "eth0"], check=False)

    def found(self) -> dict[str, dict[str, Any]]:
        """By id, without what every test here would find."""
        arguments = ("doctor", "-f", self.path, "--json", "--patience", "0.6")
        found = json.loads(call_tula(self.lb, *arguments, check=False).stdout)["findings"]
        return {f["id"]: f for f in found if f["id"] not in _OF_ENGINES}

    @contextmanager
    def has_vips(self, *hosts: Host) -> Iterator[None]:
        """They have the VIPs meanwhile."""
        addresses = ("10.9.0.100/32", "fd09::100/128")
        for host in hosts:
            host.add_address("eth0", *addresses)
        try:
            yield
        finally:
            for host in hosts:
                host.remove_address("eth0", *addresses)

    def advertises(self, host: Host, **keys: Any) -> Advertiser:
        """To the other balancer, as keepalived does by Tula's file."""
        to = self.at["lb1" if host is self.lb2 else "lb2"]
        said = {"addresses": (_ANCHORS[self.version],), **keys}
        return Advertiser(host, to, advert(**said), self.at.get(host.name, ""))

    @contextmanager
    def rules(self, hook: str, rules: str) -> Iterator[None]:
        """A firewall of lb1's meanwhile, whose table may change."""
        chain = f"chain {hook} {{ type filter hook {hook} priority 0; {rules} }}"
        self.nft(self.lb, f"table inet guard {{\n{chain}\n}}\n")
        try:
            yield
        finally:
            self.lb.run(["nft", "delete", "table", "inet", "guard"])


BOTH = pytest.mark.parametrize("setup", [4, 6], indirect=True)
ONE = pytest.mark.parametrize("setup", [4], indirect=True)
"""Of what does not depend on the IP version."""


@pytest.fixture(scope="module")
def setup(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = PairSetup(request.param, tmp_path_factory.mktemp("pair"))
    yield made
    made.lab.__exit__(None, None, None)


@BOTH
def test_a_healthy_pair(setup: PairSetup) -> None:
    """Nothing is found on the active one nor on the standby, behind a firewall that knows VRRP."""
    family = {4: "ip", 6: "ip6"}[setup.version]
    allowed = (
        "policy drop; iifname lo accept; ct state established,related accept; meta l4proto icmpv6 "
        f"accept; {family} saddr {{ {setup.at['lb2']} }} meta l4proto 112 accept; "
        f"{family} saddr {setup.at['lb2']} udp dport 4790 accept;"
    )
    with setup.rules("input", allowed):
        with setup.has_vips(setup.lb), setup.advertises(setup.lb):
            assert setup.found() == {}
        with setup.has_vips(setup.lb2), setup.advertises(setup.lb2):
            assert {f["id"] for f in setup.examine()} <= _OF_ENGINES, "and it changes nothing"


@ONE
def test_nobody_has_the_vips(setup: PairSetup) -> None:
    found = setup.found()
    assert set(found) == {"vip-on-none"}
    assert "10.9.0.100 and fd09::100" in found["vip-on-none"]["evidence"]


@BOTH
def test_both_have_the_vips_and_hear_nothing(setup: PairSetup) -> None:
    with setup.has_vips(setup.lb, setup.lb2), setup.advertises(setup.lb):
        found = setup.found()
    assert set(found) == {"vip-on-several", "adverts-missing"}
    assert found["adverts-missing"]["where"] == "lb2"
    assert "this machine and lb2 have 10.9.0.100 and" in found["vip-on-several"]["evidence"]


@ONE
def test_an_active_balancer_that_does_not_say_so(setup: PairSetup) -> None:
    with setup.has_vips(setup.lb):
        assert set(setup.found()) == {"adverts-not-sent"}


@ONE
def test_adverts_that_are_made_otherwise(setup: PairSetup) -> None:
    with (
        setup.has_vips(setup.lb, setup.lb2),
        setup.advertises(setup.lb),
        setup.advertises(setup.lb2, router_id=85),
    ):
        assert set(setup.found()) == {"vip-on-several", "vrrp-differs"}


@BOTH
def test_a_stranger_with_the_same_id(setup: PairSetup) -> None:
    """By multicast, as others do; one that claims a VIP is worse."""
    vip = {4: "10.9.0.100", 6: "fd09::100"}[setup.version]
    other = {4: "10.9.0.222", 6: "fd09::222"}[setup.version]
    with setup.has_vips(setup.lb), setup.advertises(setup.lb), ExitStack() as stack:
        group = _GROUPS[setup.version]
        said = advert((other,), version=2, authentication=1)
        stack.enter_context(Advertiser(setup.stranger, group, said))
        found = setup.found()
        assert set(found) == {"vrrp-id-in-use"}
        assert found["vrrp-id-in-use"]["severity"] == "warning"
        assert "version 2, priority 250, with authentication" in found["vrrp-id-in-use"]["evidence"]
        stack.close()
        stack.enter_context(Advertiser(setup.stranger, group, advert((vip,))))
        assert setup.found()["vrrp-id-in-use"]["severity"] == "error"
        stack.close()
        if setup.version == 4:
            stack.enter_context(Advertiser(setup.stranger, group, advert((other,), router_id=51)))
            assert setup.found() == {}  # others may have other ids


RULES = [
    (
        "output",
        "meta l4proto 112 oifname eth* drop; udp dport 4790 drop;",
        {"IP protocol 112", "udp port 4790"},
    ),
    (
        "input",
        "policy drop; ct state established,related accept; meta l4proto icmpv6 accept;",
        {"IP protocol 112", "udp port 4790"},
    ),
]


@ONE
@pytest.mark.parametrize(("hook", "rules", "wanted"), RULES, ids=range(len(RULES)))
def test_own_rules_that_drop(setup: PairSetup, hook: str, rules: str, wanted: set[str]) -> None:
    """Found, and let pass by the commands as printed."""
    with setup.rules(hook, rules), setup.has_vips(setup.lb2), setup.advertises(setup.lb2):
        found = [f for f in setup.examine() if f["id"] == "peer-filtered"]
        assert {kind for kind in wanted if any(kind in f["evidence"] for f in found)} == wanted
        assert len(found) == len(wanted)
        for finding in found:
            setup.fix(finding)
        assert setup.found() == {}
