"""Clients' link takes larger packets than the backends': who sends them is told what fits.

::

    client-1                  lb                    backend-1
    10.8.0.9, fd08::9     eth1 │  │ eth0          eth0 │  │ eth1     (VIPs on lo)
        │                      │  │                    │  │
        │                      │  ╧════════════════════╧  │   lan, MTU 1500
    ════╧══════════════════════╧══════════════════════════╧═  jumbo, MTU 9000

The backend answers by the large link, so it asks for segments of 8,948 bytes.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.doctor import PATIENCE
from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.packets import FAMILIES
from support.running import Running
from support.uploads import Sink, upload
from tula.lab import Host, Lab, Network, flat, serve_udp

pytestmark = pytest.mark.kernel

VIPS = ("10.8.0.100", "fd08::100")
UPLOADS, ECHO = 5001, 5002
SIZE = 500_000


@pytest.fixture
def network(lab: Lab) -> Iterator[Network]:
    made = flat(lab, clients=0, backends=1, vips=VIPS)
    jumbo = lab.switch("jumbo", mtu=9000)
    lab.connect(made.lb, jumbo, "10.8.0.2/24", "fd08::2/64", ifname="eth1")
    lab.connect(made.backends[0], jumbo, "10.8.0.11/24", "fd08::11/64", ifname="eth1")
    lab.host("client-1", jumbo, "10.8.0.9/24", "fd08::9/64")
    lab.ready()
    sink = Sink(made.backends[0], [UPLOADS], None).start()
    serve_udp(made.backends[0], [ECHO])
    yield made
    sink.close()


def datagram(client: Host, vip: str, size: int, *, fragment: bool) -> bool:
    """Whether one of that size is answered; it is sent again like an application would."""
    six = ":" in vip
    with client.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM) as opened:
        if fragment and not six:
            opened.setsockopt(socket.IPPROTO_IP, 10, 0)  # IP_MTU_DISCOVER, IP_PMTUDISC_DONT
        opened.settimeout(0.5)
        opened.connect((vip, ECHO))
        for _ in range(40):
            try:
                opened.send(bytes(size))
                return bool(opened.recv(100))
            except OSError:  # no answer yet, or EMSGSIZE: the kernel has heard what fits
                continue
    return False


def test_senders_are_told(network: Network, tmp_path: Path) -> None:
    lb, client = network.lb, network.lab["client-1"]
    web = service_of(network, protocol=["tcp", "udp"], ports=[UPLOADS, ECHO])
    web["backends"]["backend-1"] = {"address": ["10.9.0.11", "fd09::11"]}
    path = write_config(tmp_path / "tula.yaml", {"web": web}, ("eth1", "eth0"))
    warned = call_tula(lb, "check", "-f", path).stderr
    assert "packets of up to 9000 bytes arrive on eth1, and eth0" in warned
    call_tula(lb, "apply", "-f", path)
    arguments = ("doctor", "-f", path, "--json", "--patience", PATIENCE)
    found = json.loads(call_tula(lb, *arguments, check=False).stdout)["findings"]
    assert ("mtu-smaller", "eth0") in {(f["id"], f["where"]) for f in found}
    measured = [f["evidence"] for f in found if f["id"] == "mss-not-clamped"]
    assert ["8960" in measured[0], "8940" in measured[1]] == [True, True], measured
    with Running(lb, path) as daemon:
        for family, vip in zip(FAMILIES, VIPS, strict=True):
            sent = upload(client, vip, UPLOADS, SIZE, 60.0)
            assert (sent.arrived, sent.mtu) == (SIZE, 1500)
            for fragment in (True, False):
                client.write_sysctl(f"net.ipv{family}.route.flush", 1)
                assert datagram(client, vip, 4000, fragment=fragment)
        assert daemon.status()["counters"]["too_large"]["packets"] >= 6
