"""Backends whose server is a container or another port, behind NAT.

::

    client-1 ── wan ── router ── far ── backend-1 ── inside ── container
                         │
                    lan ═╧═ lb

Port 80 is given to the container's port 8080, and port 81 to the backend's own port 8081. Frames
are real ones, so that segments too large for the tunnel are lost, as they are on a wire.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from support.in_process import call_tula
from support.joined import Joined, agent
from support.packets import FAMILIES, vip_of
from support.uploads import Sink, upload
from tula.lab import Capture, Host, Lab, set_offload, wait_until

pytestmark = pytest.mark.kernel

SIZE = 300_000
NAT = """
table inet containers {
    chain arriving {
        type nat hook prerouting priority dstnat;
        ip daddr 10.9.0.100 tcp dport 80 dnat ip to 10.88.0.2:8080
        ip6 daddr fd09::100 tcp dport 80 dnat ip6 to [fd88::2]:8080
        ip daddr 10.9.0.100 tcp dport 81 redirect to :8081
        ip6 daddr fd09::100 tcp dport 81 dnat ip6 to [fd09::100]:8081
    }
}
"""
"""As container engines and administrators write it. Redirect would take an IPv6 address of the
tunnel's device, which has none."""


def with_container(joined: Joined, host: Host) -> Host:
    """A machine behind the backend, as a container is on its bridge."""
    lab = joined.network.lab
    inside = lab.switch("inside")
    lab.connect(host, inside, "10.88.0.1/24", "fd88::1/64", ifname="eth1")
    host.forwarding()
    container = lab.host(
        "container", inside, "10.88.0.2/24", "fd88::2/64", gateway=["10.88.0.1", "fd88::1"]
    )
    host.run(["nft", "-f", "-"], input=NAT)
    lab.ready()
    return container


@pytest.mark.parametrize("outer", [4, 6])
def test_the_mss_is_clamped_behind_nat(lab: Lab, tmp_path: Path, outer: int) -> None:
    joined = Joined(lab, tmp_path, "vxlan", outer, backends=1)
    joined.services["web"] |= {"ports": [80, 81, 82], "protocol": "tcp"}
    (host,) = joined.backends
    container = with_container(joined, host)
    for machine in (host, container, joined.client):
        set_offload(machine, "eth0", tso=False, gso=False)
    joined.join()
    for server, port in ((container, 8080), (host, 8081), (host, 82)):
        server.owns(Sink(server, [port], None).start())
    room = 1500 - {4: 50, 6: 70}[outer]
    for family in FAMILIES:
        fits = room - {4: 40, 6: 60}[family]
        for port in (80, 81, 82):
            with Capture(joined.client) as capture:
                done = upload(joined.client, vip_of(joined.network, family), port, SIZE, 10)
                wait_until(lambda seen=capture, at=port: sizes(seen, at), what="the SYN-ACK")
            assert sizes(capture, port) == {fits}
            assert done.arrived == SIZE, (family, port)


HANDED_ON = {
    "docker": """
        chain arriving {
            type nat hook prerouting priority dstnat;
            fib daddr type local jump docker
        }
        chain docker {
            iifname != "docker0" ip daddr 10.9.0.100 tcp dport 80 dnat ip to 10.88.0.2:8080
            iifname != "docker0" meta nfproto ipv6 tcp dport 80 dnat ip6 to [fd88::2]:8080
        }""",
    "redirect": """
        chain arriving {
            type nat hook prerouting priority dstnat;
            tcp dport 80 redirect to :8080
        }""",
    "tproxy": """
        chain arriving {
            type filter hook prerouting priority mangle;
            tcp dport 80 tproxy to :8080 meta mark set 1
        }""",
}
PERHAPS = {
    "range": """
        chain arriving {
            type nat hook prerouting priority dstnat;
            tcp dport 80-90 redirect to :8080
        }""",
    "map": """
        chain arriving {
            type nat hook prerouting priority dstnat;
            tcp dport vmap { 80: goto web, 81: accept }
        }
        chain web {
            tcp dport 80 redirect to :8080
        }""",
}
"""Rules that the doctor does not read completely."""
ANOTHER = """
        chain arriving {
            type nat hook prerouting priority dstnat;
            tcp dport 8000 redirect to :80
            ip daddr 10.9.0.101 tcp dport 80 redirect to :8080
            ip6 daddr fd09::101 tcp dport 80 redirect to :8080
        }"""


def test_the_doctor_knows_of_nat(lab: Lab, tmp_path: Path) -> None:
    joined = Joined(lab, tmp_path, "l2", 4, backends=1)
    joined.services["web"]["protocol"] = "tcp"
    (host,) = joined.backends
    agent(host, "join", "-f", joined.configuration())

    def found(rules: str) -> set[tuple[str, str, bool]]:
        text = f"table inet theirs\ndelete table inet theirs\ntable inet theirs {{{rules}\n}}"
        host.run(["nft", "-f", "-"], input=text)
        done = call_tula(host, "doctor", "-f", joined.path, "--json", check=False)
        findings = json.loads(done.stdout)["findings"]
        assert done.returncode == any(f["severity"] != "note" for f in findings)
        return {
            (f["id"], f["severity"], f["certain"])
            for f in findings
            if f["id"] != "no-default-route"
        }

    closed = {("not-listening", "error", True)}
    assert found("") == closed
    assert found(ANOTHER) == closed
    for name, rules in HANDED_ON.items():
        assert found(rules) == set(), name
    for name, rules in PERHAPS.items():
        assert found(rules) == {("behind-nat", "note", False)}, name
    wall = "\nchain guard { type filter hook input priority filter; policy drop; }"
    assert found(wall) == closed | {("firewall", "error", True)}
    docker = HANDED_ON["docker"]
    assert found(docker + wall) == set(), "what is handed on does not pass input"
    early = "\nchain early { type filter hook prerouting priority raw; tcp dport 80 drop; }"
    assert found(docker + early) == {("firewall", "error", True)}
    for address in ("10.9.0.100/32", "fd09::100/128"):
        host.remove_address("lo", address)
    assert found(docker) == set(), "nor does it need the VIP"
    assert found("") == closed | {("vip-missing", "error", True)}


def sizes(capture: Capture, port: int) -> set[int]:
    """The MSS in the SYN-ACKs from this port."""
    found = (Ether(frame).getlayer(TCP) for frame in capture.frames())
    answers = (tcp for tcp in found if tcp is not None and tcp.flags.S and tcp.flags.A)
    return {dict(tcp.options)["MSS"] for tcp in answers if tcp.sport == port}
