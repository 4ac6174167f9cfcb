"""Three balancers announce VIPs by BGP, and a router spreads flows over them: what may happen to
one of them loses nothing.

::

    client-1 ── router (BIRD: BGP, BFD, ECMP) ══ lan ══ lb1, lb2, lb3, backend-1 … -3

                    VIPs 10.77.0.100, fd77::100 (and later .101) are in no network
"""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from support.connections import Connections, serve_connections
from support.datagrams import Datagrams, serve_datagrams
from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.running import Running
from tula.lab import (
    BALANCERS_AS,
    ROUTERS,
    BgpRouter,
    Cluster,
    Host,
    Lab,
    prepare_backend,
    serve_tcp,
    three,
    wait_until,
)

pytestmark = pytest.mark.kernel

RATE = 1000
SOON = 60.0
"""Seconds for what takes one or two when the machine has nothing else to do."""
LATER = ("10.77.0.101", "fd77::101")
"""VIPs of a second service."""


class Site:
    """The network, its router, and a daemon on each balancer."""

    def __init__(self, path: Path, network: Cluster) -> None:
        self.network = network
        self._path = path
        self._daemons: dict[str, Running] = {}

    def start(self) -> None:
        """All daemons."""
        for lb in self.network.lbs:
            folder = self._path / lb.name
            folder.mkdir()
            path = folder / "tula.yaml"
            path.write_text(self.configuration().read_text())
            self._daemons[lb.name] = Running(lb, path)
            self._daemons[lb.name].spawn()
        for daemon in self._daemons.values():
            daemon.wait_until_it_answers()

    def restart(self) -> None:
        """Kills all daemons, and starts them again."""
        for daemon in self._daemons.values():
            daemon.kill()
        for daemon in self._daemons.values():
            daemon.spawn()
        for daemon in self._daemons.values():
            daemon.wait_until_it_answers()

    def stop(self, lb: Host) -> None:
        """One of them; BIRD goes on."""
        daemon = self._daemons.pop(lb.name, None)
        if daemon is not None:
            daemon.stop()

    def close(self) -> None:
        """Leaves nothing running."""
        for lb in self.network.lbs:
            self.stop(lb)
            call_tula(lb, "clear", check=False)

    def configuration(self, *, later: bool = False, routers: Mapping[str, int] = ROUTERS) -> Path:
        """The path of one."""
        service = service_of(
            self.network,
            ports=[53, 81],
            protocol=["tcp", "udp"],
            health={
                **{
                    "type": "tcp",
                    "via": "direct",
                    "port": 80,
                    "interval": "200ms",
                    "timeout": "1s",
                },
                **{"rise": 1, "fall": 2, "announce_while": 2},
            },
        )
        services = {"dns": service}
        if later:
            services["later"] = service | {"vip": list(LATER)}
        bgp = {"as": BALANCERS_AS, "routers": dict(routers), "bfd": "300ms"}
        return write_config(
            self._path / "next.yaml",
            services,
            load_balancers=self.network.balancers,
            high_availability={"bgp": bgp},
        )

    def announce(self, *names: str, vips: Sequence[str] = ()) -> None:
        """Waits until the router sends what is for VIPs to exactly these balancers."""
        for vip in vips or self.network.vips:
            by = partial(self.network.routes, vip)
            wait_until(lambda by=by: by() == list(names), SOON, f"{vip} by {names}")

    def bird(self, lb: Host) -> int:
        """The process id of a balancer's BIRD."""
        return int((lb.directory / "run/bird/bird.pid").read_text())

    def status(self, lb: Host) -> dict[str, Any]:
        """What a daemon says."""
        return self._daemons[lb.name].status()

    def sessions(self, lb: Host) -> dict[str, dict[str, Any]]:
        """What status says of them, by router."""
        return {each["router"]: each for each in self.status(lb)["bgp"]}

    def since(self, lb: Host) -> dict[str, float]:
        """Since when each session is as it is."""
        return {router: each["since"] for router, each in self.sessions(lb).items()}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with Lab() as lab:
        network = three(lab)
        for backend in network.backends:
            prepare_backend(backend, LATER)
            serve_datagrams(backend, 53)
            serve_connections(backend, 81)
            serve_tcp(backend, [80])
        router = BgpRouter(network)
        router.start()
        made = Site(tmp_path_factory.mktemp("bgp"), network)
        try:
            made.start()
            yield made
        finally:
            made.close()


def test_all_announce_and_say_so(site: Site) -> None:
    site.announce("lb1", "lb2", "lb3")
    for lb in site.network.lbs:
        wait_until(lambda lb=lb: _up(site.sessions(lb)), SOON, f"both sessions of {lb.name}")
        status = site.status(lb)
        assert status["kernel"]["in_sync"], status["kernel"]
        assert status["problems"] == []


def _up(sessions: Mapping[str, Mapping[str, Any]]) -> bool:
    said = {
        router: (each["state"], each["routes"], each["bfd"]) for router, each in sessions.items()
    }
    return said == dict.fromkeys(ROUTERS, ("Established", 1, "Up"))


def test_bird_killed(site: Site) -> None:
    """The router sends everything to the others until another BIRD is there."""
    lb = site.network.lbs[0]
    site.announce("lb1", "lb2", "lb3")
    with Datagrams(site.network.client, site.network.vips, 53, RATE, flows=60) as probe:
        before = site.bird(lb)
        os.kill(before, signal.SIGKILL)
        site.announce("lb2", "lb3")
        site.announce("lb1", "lb2", "lb3")
    assert probe.heard.lost == 0, probe.heard
    assert site.bird(lb) != before


def test_standby_and_active(site: Site) -> None:
    lb = site.network.lbs[1]
    site.announce("lb1", "lb2", "lb3")
    with Datagrams(site.network.client, site.network.vips, 53, RATE, flows=60) as probe:
        call_tula(lb, "standby")
        site.announce("lb1", "lb3")
        call_tula(lb, "active")
        site.announce("lb1", "lb2", "lb3")
    assert probe.heard.lost == 0, probe.heard


def test_all_daemons_killed(site: Site) -> None:
    """Nothing of what is announced changes, without them and when they are back."""
    network = site.network
    site.announce("lb1", "lb2", "lb3")
    birds = [site.bird(lb) for lb in network.lbs]
    command = ["ip", "monitor", "route"]
    with Datagrams(network.client, network.vips, 53, RATE, flows=60) as probe:
        moves = network.gateway.popen(command, stdout=subprocess.PIPE)
        site.restart()
        for lb in network.lbs:
            wait_until(lambda lb=lb: _up(site.sessions(lb)), SOON, f"both sessions of {lb.name}")
        moves.terminate()
        assert "77" not in moves.communicate(timeout=SOON)[0]
    assert probe.heard.lost == 0, probe.heard
    assert [site.bird(lb) for lb in network.lbs] == birds


def test_routes_that_somebody_deletes_come_back(site: Site) -> None:
    lb = site.network.lbs[0]
    site.announce("lb1", "lb2", "lb3")
    with Datagrams(site.network.client, site.network.vips, 53, RATE, flows=60) as probe:
        for family in ("-4", "-6"):
            lb.run(["ip", family, "route", "flush", "table", "84"])
        shown = partial(lb.run, ["ip", "route", "show", "table", "84"])
        wait_until(lambda: shown().stdout, SOON, "the route")
        site.announce("lb1", "lb2", "lb3")
    assert probe.heard.lost == 0, probe.heard


def test_a_balancer_that_sees_too_few_backends_withdraws(site: Site) -> None:
    """Its packets to the others' VIPs are still forwarded: 0 lost."""
    lb = site.network.lbs[2]
    site.announce("lb1", "lb2", "lb3")
    with Datagrams(site.network.client, site.network.vips, 53, RATE, flows=60) as probe:
        for backend in site.network.backends[:2]:
            call_tula(lb, "drain", f"dns/{backend.name}")
        site.announce("lb1", "lb2")
        for backend in site.network.backends[:2]:
            call_tula(lb, "undrain", f"dns/{backend.name}")
        site.announce("lb1", "lb2", "lb3")
    assert probe.heard.lost == 0, probe.heard


def test_a_new_vip_and_its_end(site: Site) -> None:
    """One balancer after the other gets the service, and they lose it again: nothing is sent to one
    that has no rules for it."""
    client, lbs = site.network.client, site.network.lbs
    call_tula(lbs[0], "apply", "-f", site.configuration(later=True))
    site.announce("lb1", vips=LATER)
    with Datagrams(client, LATER, 53, RATE, flows=60) as probe:
        more = site.configuration(later=True)
        for lb in lbs[1:]:
            call_tula(lb, "apply", "-f", more)
        site.announce("lb1", "lb2", "lb3", vips=LATER)
        before = site.configuration()
        for lb in lbs[1:]:
            call_tula(lb, "apply", "-f", before)
        site.announce("lb1", vips=LATER)
    assert probe.heard.lost == 0, probe.heard
    call_tula(lbs[0], "apply", "-f", site.configuration())
    site.announce(vips=LATER)
    site.announce("lb1", "lb2", "lb3")


def test_another_router_resets_no_session(site: Site) -> None:
    lb = site.network.lbs[0]
    site.announce("lb1", "lb2", "lb3")
    before = site.since(lb)
    other = site.configuration(routers={**ROUTERS, "10.9.0.9": 65000})
    call_tula(lb, "apply", "-f", other)
    wait_until(lambda: "10.9.0.9" in site.since(lb), SOON, "the new router in status")
    after = site.since(lb)
    assert {router: after[router] for router in before} == before
    call_tula(lb, "apply", "-f", site.configuration())
    wait_until(lambda: site.since(lb) == before, SOON, "the new router is gone")


def test_a_port_dies_after_a_backend_was_drained(site: Site) -> None:
    """By BFD the routes go long before the hold time ends (9 s), and the connections that the hash
    would now send elsewhere go on by the other balancers."""
    client, vips, lbs = site.network.client, site.network.vips, site.network.lbs
    site.announce("lb1", "lb2", "lb3")
    with Connections(client, vips, 81, count=300, period=0.2) as opened:
        for lb in lbs:
            call_tula(lb, "drain", "dns/backend-1")
        opened.wait_for_answers()
        with Datagrams(client, vips, 53, RATE, flows=60) as probe:
            lbs[0].set_silent("eth0")
            site.announce("lb2", "lb3")
            lbs[0].set_silent("eth0", silent=False)
            site.announce("lb1", "lb2", "lb3")
        opened.wait_for_answers()
    assert probe.heard.longest < 9, probe.heard
    assert opened.found.broken == 0, opened.found
    assert len(opened.found.backends) == 3, opened.found
    for lb in lbs:
        call_tula(lb, "undrain", "dns/backend-1")


def test_nothing_is_left_after_clear(site: Site) -> None:
    lb = site.network.lbs[2]
    foreign = ["blackhole", "192.0.2.0/24", "table", "84"]
    lb.run(["ip", "route", "add", *foreign])
    with Datagrams(site.network.client, site.network.vips, 53, RATE, flows=60) as probe:
        site.stop(lb)
        call_tula(lb, "clear")
        site.announce("lb1", "lb2")
    assert probe.heard.lost == 0, probe.heard
    assert lb.run(["ip", "route", "show", "table", "84"]).stdout.split() == foreign[:2]
    assert not (lb.directory / "run/bird/bird.conf").exists()
    assert not lb.run(["ss", "-Hulnp"]).stdout
