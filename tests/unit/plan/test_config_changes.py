"""What a configuration changes, in words."""

from __future__ import annotations

import pytest

from tula.config.load import parse_config
from tula.plan.config_changes import describe_config_changes

HEAD = """\
interfaces: [eth0]
load_balancers: {lb1: 10.0.0.2, lb2: 10.0.0.3}
defaults: {forwarding: l2, ports: 80, backends: {b1: {address: 10.0.0.11}}}
services: {web: {vip: 10.0.0.100}, dns: {vip: 10.0.0.101}, old: {vip: 10.0.0.102, announce: false}}
"""
ROUTERS = "{10.0.0.1: 65000}"


def changes(before: str, after: str) -> list[str]:
    """Between two ``high_availability``."""
    have, want = (
        parse_config(f"{HEAD}high_availability: {{{text}}}\n").config for text in (before, after)
    )
    return list(describe_config_changes(have, want))


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "", []),
        (
            "",
            "vrrp: {id: 84}",
            [
                "+ high_availability.vrrp: id 84, adverts every 100ms, MAC address: own",
                "~ high_availability.flows: none → moved",
                "~ services web and dns: announced by this machine alone → VRRP",
            ],
        ),
        (
            "vrrp: {id: 84}, flows: none",
            "flows: none",
            [
                "- high_availability.vrrp: keepalived holds no VIPs here any more",
                "~ services web and dns: announced by VRRP → this machine alone",
            ],
        ),
        (
            "vrrp: {id: 84}",
            "vrrp: {id: 85, interface: eth1, interval: 1s, mac: virtual}, flows: all, port: 4000",
            [
                "~ high_availability.vrrp.id: 84 → 85",
                "~ high_availability.vrrp.interface: that of load_balancers → eth1",
                "~ high_availability.vrrp.interval: 100ms → 1s",
                "~ high_availability.vrrp.mac: own → virtual",
                "~ high_availability.flows: moved → all",
                "~ high_availability.port: 4790 → 4000",
            ],
        ),
        (
            "bgp: {as: 65001, routers: {10.0.0.1: 65000}}",
            "vrrp: {id: 84, interface: eth1}, bgp: {as: 65001, routers: {10.0.0.1: 65000}}",
            [
                "+ high_availability.vrrp: id 84, adverts every 100ms on eth1, MAC address: own",
                "~ services web and dns: announced by BGP → VRRP",
            ],
        ),
        (
            "bgp: {as: 65001, routers: {10.0.0.1: 65000, 10.0.0.4: 65000}}",
            "bgp: {as: 65002, routers: {10.0.0.1: 65009, 10.0.0.5: 65000}, bfd: 0}",
            [
                "~ high_availability.bgp.as: 65001 → 65002",
                "~ high_availability.bgp router 10.0.0.1: AS 65000 → 65009",
                "+ high_availability.bgp router 10.0.0.5: AS 65000",
                "- high_availability.bgp router 10.0.0.4",
                "~ high_availability.bgp.bfd: 300ms → off",
            ],
        ),
        (
            "vrrp: {id: 84}, bgp: {as: 65001, routers: {10.0.0.1: 65000}}, flows: none",
            "bgp: {as: 65001, routers: {10.0.0.1: 65000}}, flows: none",
            [
                "- high_availability.vrrp: keepalived holds no VIPs here any more",
                "~ services web and dns: announced by VRRP → BGP",
            ],
        ),
    ],
)
def test_several_balancers(before: str, after: str, expected: list[str]) -> None:
    assert changes(before, after) == expected


def test_a_new_configuration_says_what_engines_there_are() -> None:
    after = parse_config(f"{HEAD}high_availability: {{bgp: {{as: 1, routers: {ROUTERS}}}}}\n")
    found = describe_config_changes(None, after.config)
    assert "+ high_availability.bgp: AS 1, 1 router, BFD: 300ms" in found
    assert not any("announced" in line for line in found), "its services are new"


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("", "persistence: 5m", "persistence none → 5m"),
        (
            "persistence: 5m",
            "persistence: {timeout: 90s, prefix: 24, scope: ftp, drain: release}",
            "persistence 5m → 1m30s prefix 24 scope ftp drain release",
        ),
        ("persistence: {timeout: 5m, prefix6: 64}", "", "persistence 5m prefix6 64 → none"),
        ("persistence: 5m", "persistence: {timeout: 300s, scope: service}", None),
    ],
)
def test_persistence_is_told_in_a_few_words(before: str, after: str, expected: str | None) -> None:
    web = "{{vip: 10.0.0.100, ports: 80, forwarding: l2, backends: {{}}, {}}}"
    have, want = (
        parse_config(f"interfaces: [eth0]\nservices: {{web: {web.format(text)}}}\n").config
        for text in (before, after)
    )
    told = [] if expected is None else [f"~ service web: {expected}"]
    assert list(describe_config_changes(have, want)) == told


def test_what_backends_are_is_told_in_the_words_of_the_configuration() -> None:
    def web(backend: str) -> str:
        backends = f"{{b1: {{address: 10.0.0.11{backend}}}}}"
        keys = f"{{vip: 10.0.0.100, forwarding: l2, ports: 80, backends: {backends}}}"
        return f"interfaces: [eth0]\nservices: {{web: {keys}}}\n"

    plain, other = web(""), web(", backup: 2, forwarding: l3, tunnel: gre")
    have, want = (parse_config(text).config for text in (plain, other))
    assert describe_config_changes(have, want) == (
        "~ service web: ~ backend b1 (backup false → 2, forwarding the service's → l3, "
        "tunnel the service's → gre)",
    )


def test_receivers_are_told_by_their_names_alone() -> None:
    one = "notify: [{webhook: 'https://a.example.org/s3cret'}, {exec: /bin/x}]"
    other = (
        "notify: [{webhook: 'https://a.example.org/0ther'}, {webhook: 'https://a.example.org/2'}]"
    )
    have, want = (
        parse_config(f"interfaces: [eth0]\nservices: {{}}\n{text}\n").config
        for text in (one, other)
    )
    assert list(describe_config_changes(have, want)) == [
        "+ notify: webhook a.example.org #2",
        "- notify: exec x",
        "~ notify: webhook a.example.org",
    ]
