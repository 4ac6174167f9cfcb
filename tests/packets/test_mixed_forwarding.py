"""One service with near backends by L2 and far ones by tunnels, also of several kinds.

::

    client-1 ── wan ── router ── far ── backend-1, -2   (by tunnels)
                         │
                    lan ═╪═ lb     VIPs 10.9.0.100, fd09::100
                         └─ near   (by L2)

Backends are prepared by the commands that ``tula backend instructions`` prints.
"""

from __future__ import annotations

import os
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from support.joined import together
from support.packets import FAMILIES, address_of, vip_of
from support.running import Running
from support.tunnelled import UPLOADS, Outside, Tunnelled, make_backend
from support.uploads import Sink, upload
from tula.lab import Capture, Lab, flows, serve_tcp, serve_udp
from tula.model.config import Protocol
from tula.model.flow import Flow

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(900)]  # the VM is slow

SIZE = 300_000
CHECK = {"type": "tcp", "interval": "500ms", "timeout": "5s", "rise": 1, "fall": 9}


@pytest.mark.parametrize(
    ("kinds", "outer"), [together(("vxlan",), 4), together(("ipip", "gre"), 4)]
)
def test_each_backend_by_its_own_way(
    lab: Lab, tmp_path: Path, kinds: tuple[str, ...], outer: int
) -> None:
    mixed = Tunnelled(lab, tmp_path, kinds[0], outer, backends=len(kinds))
    network, lb, client = mixed.network, mixed.lb, mixed.client
    near = lab.host(
        "near", network.lan, "10.9.0.11/24", "fd09::11/64", gateway=["10.9.0.1", "fd09::1"]
    )
    lab.ready()
    network.backends.append(near)
    backends: dict[str, dict[str, Any]] = mixed.web["backends"]
    ways = dict.fromkeys((host.name for host in network.backends), "")
    for host, kind in zip(network.backends, kinds, strict=False):
        backends[host.name] |= {"forwarding": "l3", "tunnel": kind}
        ways[host.name] = kind
    backends["near"] = {"address": [address_of(near, 4), address_of(near, 6)]}
    del mixed.web["tunnel"]
    mixed.web.update({"forwarding": "l2", "scheduler": "rr", "health": CHECK})
    configuration = mixed.configuration()
    for host in network.backends:
        make_backend(host, configuration)
        serve_tcp(host, [80])
        serve_udp(host, [80])
        Sink(host, [UPLOADS], None).start()

    mixed.apply()
    for backend in mixed.here.status()["web"]["backends"]:
        assert (backend["tunnel"] or {"kind": ""})["kind"] == ways[backend["name"]]
        assert backend["forwarding"] == ("l3" if ways[backend["name"]] else "l2")
    assert not mixed.here.plan(configuration), "a second apply changes nothing"

    for family in FAMILIES:
        vip, ports = vip_of(network, family), range(20000, 20000 + 8 * len(ways))
        for protocol in ("tcp", "udp"):
            with Capture(lb) as capture:
                answered = flows(client, vip, 80, ports, protocol)
                sent = capture.frames(outgoing=True)
            assert set(answered.values()) == set(ways)
            went: dict[int, set[str]] = {}
            for frame in map(Outside, sent):
                if frame.inside is not None:
                    assert frame.flow[:2] == (address_of(client, family), vip)
                    went.setdefault(frame.flow[2], set()).add(frame.what)
            assert went == {p: {ways[n]} for p, n in answered.items() if ways[n]}
        # Each flow's entry says so, too.
        for port, name in list(answered.items())[: len(ways)]:
            flow = Flow(
                ip_address(address_of(client, family)), port, ip_address(vip), 80, Protocol.UDP
            )
            told = mixed.here.trace(flow)
            assert told.backend == name
            assert ways[name] in told.reason
            assert ("in a tunnel" in told.reason) is bool(ways[name])

        # Full-size segments fit, whichever way the backend is: it says how large they may be.
        for _ in ways:
            found = upload(client, vip, UPLOADS, SIZE, 60)
            assert found.arrived == SIZE, (family, found)
    counted = {b["name"]: b["bytes"] for b in mixed.here.status()["web"]["backends"]}
    assert all(counted[name] > SIZE for name in ways), counted

    if not os.environ.get("TULA_VM"):  # a daemon takes minutes to start there
        with Running(lb, configuration) as daemon:
            daemon.wait_for(**{name.replace("-", "_"): "up" for name in ways})

    # The near one leaves: the others go on.
    del backends["near"]
    mixed.apply()
    for family in FAMILIES:
        again = flows(client, vip_of(network, family), 80, range(22000, 22016), "udp")
        assert set(again.values()) == ways.keys() - {"near"}
