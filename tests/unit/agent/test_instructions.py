"""The steps for a backend, from the configuration."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address

import pytest

from support.builders import make_config, make_service
from tula.agent.instructions import plan_instructions
from tula.model.config import Backend, Config, Tunnel

FOUR = Backend("four", (ip_address("10.0.1.1"),))
SIX = Backend("six", (ip_address("2001:db8::6"),))
VIPS = ("10.0.0.100", "2001:db8::100")


def web(tunnel: Tunnel | None, *backends: Backend) -> Config:
    config = make_config(make_service("web", VIPS, backends=backends, tunnel=tunnel))
    return replace(config, load_balancers=(("lb1", ip_address("10.0.0.2")),))


def commands(config: Config, name: str) -> list[str]:
    steps = plan_instructions(config, name)
    assert steps is not None
    return [command for step in steps for command in step.commands]


def test_l2_is_silence_and_the_vips() -> None:
    assert commands(web(None, FOUR), "four") == [
        "sysctl -q -w net.ipv4.conf.all.arp_ignore=1",
        "sysctl -q -w net.ipv4.conf.all.arp_announce=2",
        "ip address replace 10.0.0.100/32 dev lo scope host",
        "ip address replace 2001:db8::100/128 dev lo nodad noprefixroute preferred_lft 0",
    ]


@pytest.mark.parametrize(
    ("tunnel", "name", "line"),
    [
        (Tunnel.IPIP, "four", "type sit mode any local 10.0.1.1 remote 10.0.0.2"),
        (Tunnel.IPIP, "six", "type ip6tnl mode any local 2001:db8::6 remote ::"),
        (Tunnel.GRE, "four", "type gre local 10.0.1.1 remote 10.0.0.2"),
        (Tunnel.GRE, "six", "type ip6gre local 2001:db8::6 remote ::"),
        (Tunnel.GUE, "four", "ip fou add port 5555 gue"),
        (Tunnel.GUE, "six", "ip -6 fou add port 5555 gue"),
        (Tunnel.VXLAN, "four", "id 21621 dstport 4789 local 10.0.1.1 nolearning"),
    ],
)
def test_each_tunnel_has_its_other_end(tunnel: Tunnel, name: str, line: str) -> None:
    made = commands(web(tunnel, FOUR, SIX), name)
    assert any(line in command for command in made)
    assert any("rp_filter=2" in command for command in made)


@pytest.mark.parametrize(
    ("tunnel", "sizes"),
    [
        (Tunnel.IPIP, ["1440", "1420"]),
        (Tunnel.GRE, ["1436", "1416"]),
        (Tunnel.GUE, ["1428", "1408"]),
        (Tunnel.VXLAN, ["1410", "1390"]),
    ],
)
def test_segments_fit_into_the_tunnel(tunnel: Tunnel, sizes: list[str]) -> None:
    made = commands(web(tunnel, FOUR), "four")
    assert re.findall(r"maxseg size set (\d+)", "\n".join(made)) == sizes


def test_a_backend_that_is_not_there() -> None:
    assert plan_instructions(web(Tunnel.GRE, FOUR), "five") is None


def test_each_balancer_has_a_device_of_its_own_whatever_its_name() -> None:
    balancers = [(f"a-balancer-of-a-long-name-{n}", ip_address(f"10.0.0.{n}")) for n in (2, 3)]
    config = replace(web(Tunnel.IPIP, FOUR), load_balancers=tuple(balancers))
    made = devices(config, "four")
    assert list(made.values()) == [
        "type sit mode any local 10.0.1.1 remote 10.0.0.2",
        "type sit mode any local 10.0.1.1 remote 10.0.0.3",
    ]
    fewer = replace(config, load_balancers=config.load_balancers[1:])
    assert devices(fewer, "four").items() < made.items(), "it keeps its name"


def test_tunnels_of_one_backend_have_devices_of_their_own_but_for_ipip_and_gue() -> None:
    services = [
        make_service(f"s{n}", [f"10.0.0.{n}"], backends=[SIX], tunnel=tunnel)
        for n, tunnel in enumerate(Tunnel, 100)
    ]
    names = list(devices(make_config(*services), "six"))
    assert [name.rpartition("-")[0] for name in names] == ["tula-ipip", "tula-gre", "tula-vxlan"]
    assert all(len(name) <= 15 for name in names)


def devices(config: Config, backend: str) -> dict[str, str]:
    """By name, what ``ip link add`` is told."""
    made = [c.partition("ip link add ")[2] for c in commands(config, backend) if "link add" in c]
    return {name: rest for name, _, rest in (line.partition(" ") for line in made)}
