"""One service with near backends by L2 and far ones by tunnels, also of several kinds.

::

    client-1 ── wan ── router ── far ── backend-1, -2   (by tunnels)
                         │
                    lan ═╪═ lb     VIPs 10.9.0.100, fd09::100
                         └─ near   (by L2)

Backends are prepared by the commands that ``tula backend instructions`` prints.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from support.in_process import call_tula
from support.joined import together
from support.packets import FAMILIES, address_of, vip_of
from support.running import Running
from support.tunnelled import UPLOADS, Outside, Tunnelled, make_backend
from support.uploads import Sink, upload
from tula.lab import Capture, Lab, flows, serve_tcp, serve_udp

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

    with Running(lb, configuration) as daemon:
        daemon.wait_for(**{name.replace("-", "_"): "up" for name in ways}, within=180)
        shown = daemon.backends()
        for name, way in ways.items():
            backend = shown[f"web/{name}"]
            assert (backend["tunnel"] or {"kind": ""})["kind"] == way
            assert backend["forwarding"] == ("l3" if way else "l2")

        for family in FAMILIES:
            vip, ports = vip_of(network, family), range(20000, 20000 + 8 * len(ways))
            for protocol in ("tcp", "udp"):
                with Capture(lb) as capture:
                    answered = flows(client, vip, 80, ports, protocol)
                    sent = capture.frames(outgoing=True)
                assert set(answered.values()) == set(ways)
                went: dict[int, set[str]] = {}
                for frame in map(Outside, sent):
                    # The balancer's checks go the same ways, from an address of its own.
                    if frame.inside is not None and frame.inside.src == address_of(client, family):
                        assert frame.flow[1] == vip
                        went.setdefault(frame.flow[2], set()).add(frame.what)
                assert went == {p: {ways[n]} for p, n in answered.items() if ways[n]}

            # Full-size segments fit, whichever way the backend is: it says how large they may be.
            for _ in ways:
                found = upload(client, vip, UPLOADS, SIZE, 60)
                assert found.arrived == SIZE, (family, found)

        counted = daemon.backends()
        assert all(counted[f"web/{name}"]["bytes"] > SIZE for name in ways)
        assert call_tula(lb, "plan", "--exit-code").returncode == 0
        traced = call_tula(
            lb,
            "trace",
            f"{network.vip4}:80",
            "--client",
            f"{address_of(client, 4)}:20000",
            "--protocol",
            "udp",
        ).stdout
        assert ("in a tunnel" in traced) is bool(ways[answered_by(traced, ways)])

        # The way is the backend's own: the near one leaves, and only the others serve.
        call_tula(lb, "disable", "web/near")
        left = {name for name, way in ways.items() if way}
        for family in FAMILIES:
            again = flows(client, vip_of(network, family), 80, range(22000, 22016), "udp")
            assert set(again.values()) == left


def answered_by(traced: str, ways: dict[str, str]) -> str:
    """The backend that a trace names."""
    return next(name for name in ways if name in traced)
