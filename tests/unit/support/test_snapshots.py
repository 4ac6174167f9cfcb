"""A snapshot of a machine holds what was configured, and nothing that time or packets change."""

from __future__ import annotations

import pytest

from support.snapshots import without_aging

AGED = {
    "handles": (
        "table ip t { # handle 1\n\tcounter packets 0 bytes 0 # handle 6\n}\n",
        "table ip t { # handle 7\n\tcounter packets 9 bytes 540 # handle 12\n}\n",
    ),
    "counters": (
        "\tcounter no_backend {\n\t\tpackets 0 bytes 0\n\t}\n",
        "\tcounter no_backend {\n\t\tpackets 12 bytes 1040\n\t}\n",
    ),
    "counters, and lines that they break": (
        "\telements = { 0x1 counter packets 8 bytes 43 : 10.7.0.11, 0x2 counter packets 1 bytes 8"
        " : 10.7.0.12 }\n",
        "\telements = { 0x1 counter packets 80000 bytes 4300000 : 10.7.0.11,\n"
        "\t\t\t     0x2 counter packets 1 bytes 8 : 10.7.0.12 }\n",
    ),
    "a quota": (
        "\tquota q {\n\t\tover 10 mbytes used 3 mbytes\n\t}\n\t\tquota 25 mbytes\n",
        "\tquota q {\n\t\tover 10 mbytes used 4 mbytes\n\t}\n\t\tquota 25 mbytes used 5 bytes\n",
    ),
    "elements that expire": (
        "\tflags timeout\n\telements = { 1.2.3.4 timeout 1h expires 59m59s984ms, 1.2.3.5 }\n",
        "\tflags timeout\n\telements = { 1.2.3.4 timeout 1h expires 58m1s, 1.2.3.5 }\n",
    ),
    "elements that packets add": (
        "\t\tsize 65536\n\t\tflags dynamic,timeout\n\t}\n",
        "\t\tsize 65536\n\t\tflags dynamic,timeout\n\t\telements = { 10.8.0.2 . 5 timeout 1m"
        " expires 59s,\n\t\t\t     10.8.0.3 . 6 timeout 1m expires 3s }\n\t}\n",
    ),
    "elements that packets add, with a timeout of the set's": (
        "\t\tflags dynamic,timeout\n\t\ttimeout 1m\n\t}\n",
        "\t\tflags dynamic,timeout\n\t\ttimeout 1m\n\t\telements = { 1.2.3.4 expires 9s984ms }\n"
        "\t}\n",
    ),
    "addresses": (
        "    inet6 fd55::1/64 scope global tentative dynamic \n"
        "       valid_lft 300sec preferred_lft 200sec\n",
        "    inet6 fd55::1/64 scope global dynamic \n"
        "       valid_lft 270sec preferred_lft 170sec\n",
    ),
    "routes": (
        "fd66::/64 via fd09::1 dev eth0 metric 1024 expires 99sec pref medium\n",
        "fd66::/64 via fd09::1 dev eth0 metric 1024 expires 12sec pref medium\n",
    ),
    "timers": (
        "    bridge hello_timer    0.00 tcn_timer    0.00 gc_timer    0.05 group_fwd_mask 0\n",
        "    bridge hello_timer    1.52 tcn_timer    0.00 gc_timer  299.05 group_fwd_mask 0\n",
    ),
    "learned addresses": (
        "02:00:00:00:00:01 dev v0 dst 10.9.0.99 self permanent\n",
        "02:00:00:00:00:02 dev v0 dst 10.9.0.99 self \n"
        "02:00:00:00:00:01 dev v0 dst 10.9.0.99 self permanent\n"
        "02:00:00:00:00:03 dev br0 master br0 stale\n",
    ),
    "memberships": ("\tinet6 ff02::1:ff00:2 users 2\n", "\tinet6 ff02::1:ff00:2\n"),
}
CHANGED = {
    "a rule": ("\t\tcounter packets 1 bytes 2 drop\n", "\t\tcounter packets 1 bytes 2 accept\n"),
    "a counter": ("\t\tip ttl 1 counter packets 1 bytes 2 drop\n", "\t\tip ttl 1 drop\n"),
    "a quota's size": ("\t\tquota 25 mbytes used 3 bytes\n", "\t\tquota 26 mbytes used 3 bytes\n"),
    "a timeout": (
        "\telements = { 1.2.3.4 timeout 1h expires 59m }\n",
        "\telements = { 1.2.3.4 timeout 2h expires 59m }\n",
    ),
    "an element": (
        "\tflags timeout\n\telements = { 1.2.3.4 timeout 1h expires 59m }\n",
        "\tflags timeout\n\telements = { 1.2.3.5 timeout 1h expires 59m }\n",
    ),
    "a rule that updates": ("\t\tupdate @d { ip saddr timeout 5s }\n", ""),
    "an address": (
        "    inet 10.9.0.2/24 scope global eth0\n       valid_lft forever preferred_lft forever\n",
        "    inet 10.9.0.3/24 scope global eth0\n       valid_lft forever preferred_lft forever\n",
    ),
    "a route": (
        "fd66::/64 via fd09::1 dev eth0 metric 1024 expires 99sec pref medium\n",
        "fd66::/64 via fd09::3 dev eth0 metric 1024 expires 99sec pref medium\n",
    ),
    "an IPv4 route": (
        "10.9.0.0/24 dev eth0 proto kernel scope link src 10.9.0.2 \n",
        "10.9.0.0/24 dev eth1 proto kernel scope link src 10.9.0.2 \n",
    ),
    "a peer": (
        "02:00:00:00:00:01 dev v0 dst 10.9.0.99 self permanent\n",
        "02:00:00:00:00:01 dev v0 dst 10.9.0.98 self permanent\n",
    ),
    "a static peer": ("02:00:00:00:00:01 dev v0 dst 10.9.0.99 self static\n", ""),
    "a neighbour": ("10.7.0.12 dev v0 lladdr 02:54:0a:07:00:0c PERMANENT \n", ""),
    "a link's settings": (
        "    vxlan id 7 dstport 4790 ttl auto ageing 300 udpcsum\n",
        "    vxlan id 7 dstport 4790 ttl auto ageing 299 udpcsum\n",
    ),
}


@pytest.mark.parametrize("texts", AGED.values(), ids=AGED.keys())
def test_what_ages_is_no_difference(texts: tuple[str, str]) -> None:
    younger, older = map(without_aging, texts)
    assert younger == older


@pytest.mark.parametrize("texts", CHANGED.values(), ids=CHANGED.keys())
def test_what_is_configured_is_one(texts: tuple[str, str]) -> None:
    had, has = map(without_aging, texts)
    assert had != has


def test_the_rest_stays_as_it_is() -> None:
    text = "table ip t {\n\tchain c {\n\t\tip daddr { 1.2.3.4, 1.2.3.5 } drop\n\t}\n}\n"
    assert without_aging(text) == text
