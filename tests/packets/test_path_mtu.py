"""Path-MTU discovery through the balancer, on a real path.

::

    client-1   (MTU 1500, and says so)
        │
    ════╪═════════════════════════  wan
        │ MTU 1300
      router
        │ MTU 1500
    ════╪══════════╤═══════════╤══  lan
                   lb      backend-1, -2, -3

Backends answer with packets of 1500 bytes. The router cannot pass them on and says so to the
VIP, that is to the balancer, which must tell the backend.
"""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from support.in_process import InProcess
from support.lab_configurations import service_of, write_config
from support.packets import FAMILIES, udp_socket, vip_of
from tula.lab import Lab, Network, routed, serve_http, serve_udp, wait_until

pytestmark = pytest.mark.kernel

MTU = 1300
SIZE = 2_000_000
IPV6_MTU = 24
"""The socket option (linux/in6.h): how big its fragments are."""


@pytest.fixture
def network(lab: Lab, tmp_path: Path) -> Network:
    made = routed(lab, clients=1)
    assert made.router is not None
    with made.router.netlink() as netlink:
        netlink.link("set", index=made.router.index("eth1"), mtu=MTU)
    for backend in made.backends:
        serve_http(backend, 80)
        serve_udp(backend, [80])
    configuration = write_config(
        tmp_path / "tula.yaml", {"web": service_of(made, protocol=["tcp", "udp"])}
    )
    InProcess(made.lb).apply(configuration)
    return made


def download(network: Network, family: int, seconds: int) -> int:
    """How many bytes came; an unmodified client, an unmodified server."""
    vip = vip_of(network, family)
    url = f"http://[{vip}]/bytes/{SIZE}" if family == 6 else f"http://{vip}/bytes/{SIZE}"
    options = ["-sS", "-o/dev/null", f"-m{seconds}", "-w%{size_download}"]
    ran = network.client.run(["curl", *options, url], check=False)
    return int(ran.stdout)


def steered(network: Network) -> int:
    listed = network.lb.run(["nft", "-j", "list", "counters", "table", "netdev", "tula"]).stdout
    return next(
        entry["counter"]["packets"]
        for entry in json.loads(listed)["nftables"]
        if entry.get("counter", {}).get("name") == "icmp_steered"
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_a_download_over_a_narrow_path_completes(network: Network, family: int) -> None:
    assert download(network, family, 20) == SIZE
    assert steered(network) >= 1


@pytest.mark.parametrize("family", FAMILIES)
def test_it_would_stall_if_the_errors_stayed_at_the_balancer(network: Network, family: int) -> None:
    listed = network.lb.run(["nft", "-a", "list", "chain", "netdev", "tula", "in.eth0"]).stdout
    rule = next(line for line in listed.splitlines() if f"goto icmp{family}" in line)
    handle = rule.rsplit(" ", 1)[1]
    network.lb.run(["nft", "delete", "rule", "netdev", "tula", "in.eth0", "handle", handle])
    assert download(network, family, 2) < MTU


def test_datagrams_in_pieces_too_big_for_the_path_get_through_the_second_time(
    network: Network,
) -> None:
    """IPv6: the router's error quotes a fragment; the backend makes the next ones smaller."""
    with udp_socket(network.client, 6, 30000) as asking:
        asking.setsockopt(socket.IPPROTO_IPV6, IPV6_MTU, MTU)  # a veth takes no more than its MTU
        asking.connect((vip_of(network, 6), 80))
        asking.settimeout(0.2)
        payload = bytes(5000)

        def answered() -> bytes:
            asking.send(payload)
            try:
                return asking.recv(65535)
            except TimeoutError:
                return b""

        assert not answered(), "the first is too big"
        assert wait_until(answered, what="an answer").endswith(payload)
    assert steered(network) >= 1
