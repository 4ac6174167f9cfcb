"""Whom a service's lists do not admit."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tula.config.load import parse_config
from tula.plan.admission import describe_shut, refused
from tula.plan.config_changes import describe_config_changes

TEXT = """
interfaces: [eth0]
services:
  web:
    vip: [10.0.0.100, "2001:db8::100"]
    ports: [80]
    forwarding: l2
    allow: [10.0.0.0/8, 10.1.0.0/16]
    deny: [10.9.0.0/24]
    backends: {}
"""


@pytest.mark.parametrize(
    ("client", "why"),
    [
        ("10.1.2.3", ""),
        ("10.9.0.3", "10.9.0.3 is denied by deny 10.9.0.0/24: dropped"),
        ("192.0.2.1", "192.0.2.1 is not in allow: dropped"),
        ("2001:db8::7", "2001:db8::7 is not in allow: dropped"),
    ],
)
def test_the_reason_names_the_prefix(client: str, why: str) -> None:
    (service,) = parse_config(TEXT.encode()).config.services
    assert refused(service, ip_address(client)) == why


def test_a_family_that_no_list_admits_is_told() -> None:
    assert list(describe_shut(parse_config(TEXT.encode()).config)) == [
        "web has VIPs of IPv6 and no IPv6 prefix in allow: nobody may connect there; "
        "list ::/0 for all"
    ]


def test_a_change_names_the_prefixes() -> None:
    before = parse_config(TEXT.encode()).config
    more = TEXT.replace("[10.9.0.0/24]", "[10.9.1.0/24, 192.0.2.7]")
    many = TEXT.replace("[10.9.0.0/24]", str([f"192.0.2.{n}" for n in range(1, 9)]))
    assert describe_config_changes(before, parse_config(more.encode()).config) == (
        "~ service web: deny + 10.9.1.0/24 + 192.0.2.7/32 - 10.9.0.0/24",
    )
    assert describe_config_changes(before, parse_config(many.encode()).config) == (
        "~ service web: deny + 8 prefixes - 10.9.0.0/24",
    )
