"""Backups serve when no other backend can, and no longer; ``minimum`` and ``on_down: keep``.

::

    client-1            lb  VIP 10.9.0.100, fd09::100        backend-1 … 5
        │                │                                     │   (VIPs on lo)
    ════╧════════════════╧═════════════════════════════════════╧═════  lan

backend-1 and -2 are no backups, backend-3 and -4 are of level 1, backend-5 of level 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from support.in_process import call_tula
from support.lab_configurations import backends_of, service_of, write_config
from support.packets import vip_of
from support.running import Running
from tula.lab import Lab, TcpFlow, ask_all, flat, flows, serve_tcp, serve_udp, tcp_flows
from tula.lab.servers import Server
from tula.lab.wait import wait_until

pytestmark = pytest.mark.kernel

QUICK = {"type": "tcp", "port": 81, "via": "direct", "interval": "200ms", "timeout": "5s"}
PRIMARIES, BACKUPS, LAST = {"backend-1", "backend-2"}, {"backend-3", "backend-4"}, {"backend-5"}


class Pool:
    """A service of five backends that all serve; each says on port 81 whether it is well."""

    def __init__(self, lab: Lab) -> None:
        self.network = flat(lab, clients=1, backends=5)
        self.client = self.network.client
        self.ports = count(20000, 24)
        self._well: dict[str, Server] = {}
        for backend in self.network.backends:
            serve_tcp(backend, [80])
            serve_udp(backend, [80])
            self.up(backend.name)

    def put(self, directory: Path, levels: tuple[int, ...] = (0, 0, 1, 1, 2), **keys: Any) -> Path:
        """The configuration, with these levels of the backends."""
        backends = backends_of(*self.network.backends)
        for backend, level in zip(backends.values(), levels, strict=True):
            backend["backup"] = level or False
        health = {**QUICK, "rise": 2, "fall": 2}
        web = service_of(self.network, protocol=["tcp", "udp"], backends=backends, health=health)
        return write_config(directory / "tula.yaml", {"web": {**web, **keys}})

    def up(self, *names: str) -> None:
        """Its checks pass from now on."""
        for name in names:
            self._well[name] = serve_tcp(self.network.backend(name), [81])

    def down(self, *names: str) -> None:
        """They fail; it serves as before, and what it is sent shows."""
        for name in names:
            self._well.pop(name).close()

    def answering(self, families: Iterable[int] = (4, 6)) -> set[str]:
        """Who answers new flows, by IPv4 and IPv6, TCP and UDP: the same every time."""
        found = set()
        for family in families:
            for protocol in ("tcp", "udp"):
                first = next(self.ports)
                asked, vip = range(first, first + 24), vip_of(self.network, family)
                answered = flows(self.client, vip, 80, asked, protocol)
                found.add(frozenset(answered.values()))
        assert len(found) == 1, found
        return set(next(iter(found)))

    def connect(self) -> list[TcpFlow]:
        """Connections that stay."""
        first = next(self.ports)
        return tcp_flows(self.client, vip_of(self.network, 4), 80, range(first, first + 24))


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Lab() as lab:
        yield Pool(lab)


def told(daemon: Running, after: int = 0) -> list[str]:
    """What the daemon told of the service as a whole."""
    return [e["kind"] for e in daemon.events() if e["number"] > after and e["subject"] == "web"]


def test_the_lowest_level_serves_that_can(pool: Pool, tmp_path: Path) -> None:
    network, lb = pool.network, pool.network.lb
    with Running(lb, pool.put(tmp_path)) as daemon:
        assert pool.answering() == PRIMARIES, "not checked yet, and backups do not serve"
        up = {name.replace("-", "_"): "up" for name in PRIMARIES | BACKUPS | LAST}
        found = daemon.wait_for(**up)
        spare = found["web/backend-3"]
        assert (spare["backup"], spare["serving"], spare["effective_weight"]) == (1, False, 0)
        assert spare["reason"] == "stands by as backup, level 1"
        assert pool.answering() == PRIMARIES

        before = pool.connect()
        held = ask_all(before)
        assert set(held.values()) == PRIMARIES
        pool.down("backend-1")
        daemon.wait_for(backend_1="down")
        assert pool.answering() == {"backend-2"}
        assert told(daemon) == []

        # The last one is drained: backups take what is new, and it keeps what it has.
        kept = [flow for flow in before if held[flow.source_port] == "backend-2"]
        call_tula(lb, "drain", "web/backend-2")
        assert pool.answering() == BACKUPS
        assert told(daemon) == ["backups-started"]
        assert set(ask_all(kept).values()) == {"backend-2"}
        (web,) = daemon.status()["services"]
        assert (web["on_backups"], web["minimum"]) == (True, 1)
        text = call_tula(lb, "status", check=False).stdout
        assert "served by backups: web" in text.splitlines()[0]
        traced = call_tula(lb, "trace", f"{network.vip4}:80", "--client", "10.9.0.201:999").stdout
        assert "its backups serve" in traced
        call_tula(lb, "undrain", "web/backend-2")
        assert pool.answering() == {"backend-2"}
        assert told(daemon) == ["backups-started", "backups-ended"]

        # Level by level, and at the end panic: those serve that are no backups.
        last = daemon.events()[-1]["number"]
        pool.down("backend-2")
        daemon.wait_for(backend_2="down")
        assert pool.answering() == BACKUPS
        at_backups = pool.connect()
        pool.down(*BACKUPS)
        daemon.wait_for(backend_3="down", backend_4="down")
        assert pool.answering() == LAST
        pool.down(*LAST)
        daemon.wait_for(backend_5="down")
        assert pool.answering() == PRIMARIES
        started = ["backups-started", "backups-started"]
        assert told(daemon, last) == [*started, "panic-started", "backups-ended"]

        # And back; connections at a backup that stands by again go on.
        pool.up(*LAST)
        daemon.wait_for(backend_5="up")
        assert pool.answering() == LAST
        pool.up(*BACKUPS)
        daemon.wait_for(backend_3="up", backend_4="up")
        assert pool.answering() == BACKUPS
        for flow in (*before, *at_backups):
            flow.close(reset=True)
        at_backups = pool.connect()
        held = ask_all(at_backups)
        assert set(held.values()) == BACKUPS
        pool.up("backend-1")
        daemon.wait_for(backend_1="up")
        assert pool.answering() == {"backend-1"}
        assert ask_all(at_backups) == held
        for flow in at_backups:
            flow.close(reset=True)
        pool.up("backend-2")
        daemon.wait_for(backend_2="up")
        assert pool.answering() == PRIMARIES
        assert told(daemon, last)[-1] == "backups-ended"

        # Fewer than the minimum are none; one that can serve stands by then, too.
        last = daemon.events()[-1]["number"]
        call_tula(lb, "apply", "-f", pool.put(tmp_path, minimum=2))
        daemon.wait_for(**up)
        assert pool.answering() == PRIMARIES
        pool.down("backend-1")
        found = daemon.wait_for(backend_1="down")
        assert found["web/backend-2"]["reason"] == (
            "stands by: fewer than the minimum of 2 can serve"
        )
        assert pool.answering() == BACKUPS
        pool.down(*BACKUPS, *LAST)
        daemon.wait_for(backend_3="down", backend_4="down", backend_5="down")
        asked = flows(pool.client, network.vip4, 80, range(19000, 19008), "udp", allow_loss=True)
        assert asked == {}, "nobody serves"
        wait_until(lambda: daemon.status()["services"][0]["no_backend"] >= 8, 30, "the count")
        assert "1 of 2 needed can serve" in daemon.status()["summary"]["text"]
        assert told(daemon, last)[0] == "backups-started"
        assert sorted(told(daemon, last)[-2:]) == ["backups-ended", "minimum-missed"]
        pool.up("backend-1")
        daemon.wait_for(backend_1="up")
        assert pool.answering() == PRIMARIES
        assert told(daemon, last)[-1] == "minimum-reached"
    pool.up(*BACKUPS, *LAST)
    call_tula(lb, "clear")


def test_flows_of_a_backend_that_is_down_stay_or_go(pool: Pool, tmp_path: Path) -> None:
    network, lb = pool.network, pool.network.lb
    levels = (0, 0, 0, 0, 1)

    def datagrams(ports: Iterable[int]) -> dict[int, str]:
        return flows(pool.client, network.vip6, 80, ports, "udp")

    with Running(lb, pool.put(tmp_path, levels, on_down="keep")) as daemon:
        daemon.wait_for(**{f"backend_{n}": "up" for n in range(1, 6)})
        opened, ports = pool.connect(), range(18000, 18024)
        held, sent = ask_all(opened), datagrams(ports)
        assert "backend-1" in held.values()
        assert "backend-1" in sent.values()
        pool.down("backend-1")
        daemon.wait_for(backend_1="down")
        assert ask_all(opened) == held
        assert datagrams(ports) == sent
        others = {"backend-2", *BACKUPS}
        assert pool.answering() == others

        # A new daemon, which has not checked anything yet, takes it for what it was.
        last = daemon.events()[-1]["number"]
        daemon.kill()
        daemon.start()
        assert daemon.states()["web/backend-1"] == "down"
        assert pool.answering() == others
        daemon.wait_for(backend_2="up", backend_5="up")
        told_since = [(e["kind"], e["subject"]) for e in daemon.events() if e["number"] > last]
        assert ("backend-down", "web/backend-1") not in told_since, "it was never anything else"
        assert ask_all(opened) == held

        # What the operator disables goes, as ever.
        call_tula(lb, "disable", "web/backend-1")
        assert "backend-1" not in datagrams(ports).values()
        call_tula(lb, "enable", "web/backend-1")
        for flow in opened:
            flow.close(reset=True)
        pool.up("backend-1")
        daemon.wait_for(backend_1="up")

        call_tula(lb, "apply", "-f", pool.put(tmp_path, levels))
        daemon.wait_for(**{f"backend_{n}": "up" for n in range(1, 6)})
        opened, ports = pool.connect(), range(18100, 18124)
        held, sent = ask_all(opened), datagrams(ports)
        mine = {port for port, name in held.items() if name == "backend-1"}
        assert mine
        assert "backend-1" in sent.values()
        pool.down("backend-1")
        daemon.wait_for(backend_1="down")
        assert ask_all(opened, allow_loss=True).keys() == held.keys() - mine, "they are reset"
        moved = datagrams(ports)
        assert "backend-1" not in moved.values()
        stayed = {port: name for port, name in sent.items() if name != "backend-1"}
        assert moved.items() >= stayed.items()
    pool.up("backend-1")
    call_tula(lb, "clear")
