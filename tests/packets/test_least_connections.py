"""least-connections: new connections go to who has few, until all are even.

::

    client-1             lb, with the daemon          backend-1 … 3
        │                        │                        │   (VIPs on lo)
    ════╧════════════════════════╧════════════════════════╧════  lan
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from support.lab_documents import service_of, write_document
from support.packets import FAMILIES, vip_of
from support.running import Running
from tula.lab import Lab, ask_all, flat, serve_tcp, tcp_flows, wait_until

pytestmark = pytest.mark.kernel


@pytest.mark.parametrize("family", FAMILIES)
def test_new_connections_go_to_who_has_few_until_all_are_even(
    lab: Lab, tmp_path: Path, family: int
) -> None:
    network = flat(lab, backends=3)
    for backend in network.backends:
        serve_tcp(backend, [80])
    vip = vip_of(network, family)
    web = service_of(network, scheduler="least-connections")
    path = write_document(tmp_path / "tula.yaml", {"web": web})
    with Running(network.lb, path) as daemon:
        for name in ("backend-2", "backend-3"):
            network.lb.tula("drain", f"web/{name}")
        opened = tcp_flows(network.client, vip, 80, range(21000, 21050))
        assert {flow.backend for flow in opened} == {"backend-1"}
        for name in ("backend-2", "backend-3"):
            network.lb.tula("undrain", f"web/{name}")

        def connections() -> dict[str, int | None]:
            return {name: b["connections"] for name, b in daemon.backends().items()}

        wait_until(lambda: connections()["web/backend-1"] == 50, 20.0, "the count")
        at, seen = 21050, 0
        while seen < 12:  # each time that many a count, until those before are in it
            fresh = tcp_flows(network.client, vip, 80, range(at, at + 10))
            opened += fresh
            at, seen = at + 10, seen + 1
            whole = len(opened)
            wait_until(
                lambda whole=whole: sum(n or 0 for n in connections().values()) == whole,
                20.0,
                "the count",
            )
        held = Counter(flow.backend for flow in opened)
        assert held["backend-1"] < 70, f"50 and few of 120: {held}"
        assert min(held["backend-2"], held["backend-3"]) > 40
        assert not daemon.status()["daemon"]["problems"]
        rules = network.lb.run(["nft", "-j", "list", "chain", "netdev", "tula", f"svc{family}.web"])
        assert "turns_1_1021" in rules.stdout
        assert ask_all(opened) == {flow.source_port: flow.backend for flow in opened}
