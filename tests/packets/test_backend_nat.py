"""Backends whose server is a container or another port, behind NAT.

::

    client-1 ── wan ── router ── far ── backend-1 ── inside ── container
                         │
                    lan ═╧═ lb

Port 80 is given to the container's port 8080, and port 81 to the backend's own port 8081. Frames
are real ones, so that segments too large for the tunnel are lost, as they are on a wire.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from scapy.layers.inet import TCP
from scapy.layers.l2 import Ether

from support.joined import Joined
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


def sizes(capture: Capture, port: int) -> set[int]:
    """The MSS in the SYN-ACKs from this port."""
    found = (Ether(frame).getlayer(TCP) for frame in capture.frames())
    answers = (tcp for tcp in found if tcp is not None and tcp.flags.S and tcp.flags.A)
    return {dict(tcp.options)["MSS"] for tcp in answers if tcp.sport == port}
