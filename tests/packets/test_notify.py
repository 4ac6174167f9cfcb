"""Backends flap, balancers die: receivers hear of it once, and failover does not wait for them.

::

    client-1 ── router ══ lan ══ lb1, lb2, backend-1, backend-2

The receiver of both balancers is a program that appends what it reads to one file. Another
webhook is dead, and on lb1 another program never ends.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.running import Running
from tula.lab import Cluster, Lab, TcpServer, pair, serve_tcp, wait_until

pytestmark = pytest.mark.kernel

WITHIN = 90.0
"""Seconds for what takes a few on a machine that has nothing else to do."""
FLAPS = 250 if os.environ.get("TULA_SOAK") else 3
CHECK = {"type": "tcp", "via": "direct", "interval": "200ms", "timeout": "1s", "fall": 1, "rise": 1}


@dataclass
class Site:
    """Two balancers that know each other, and what they have told."""

    network: Cluster
    daemons: dict[str, Running]
    servers: dict[str, TcpServer]
    file: Path

    @property
    def told(self) -> list[dict[str, Any]]:
        """The messages so far."""
        text = self.file.read_text()
        return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]

    def changes(self, name: str) -> list[tuple[str, str]]:
        """What was told of a backend: by which balancer, and how it ended."""
        return [
            (message["balancer"], change["status"])
            for message in self.told
            for change in message["changes"]
            if change["subject"] == f"web/{name}"
        ]

    def down(self, name: str) -> None:
        self.servers.pop(name).close()
        self.wait_for(name, "down")

    def up(self, name: str) -> None:
        host = next(b for b in self.network.backends if b.name == name)
        self.servers[name] = serve_tcp(host, [80])
        self.wait_for(name, "up")

    def wait_for(self, name: str, state: str) -> None:
        for daemon in self.daemons.values():
            daemon.wait_for(within=WITHIN, **{name.replace("-", "_"): state})

    @property
    def sure(self) -> bool:
        """Whether lb2 has heard lb1 all the time. On a machine so busy that it has not, both tell:
        two messages in doubt."""
        return not any(e["kind"] == "peer-lost" for e in self.daemons["lb2"].events())

    def receiver(self, lb: str, number: int = 0) -> dict[str, Any]:
        return dict(self.daemons[lb].status()["notify"][number])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("notify")
    told = folder / "told"
    told.touch()
    program = folder / "append"
    # One write, so that messages of two balancers stay lines.
    program.write_text(
        f"#!{sys.executable}\nimport os, sys\n"
        f"fd = os.open({str(told)!r}, os.O_WRONLY | os.O_APPEND)\n"
        "os.write(fd, sys.stdin.buffer.read())\n"
    )
    program.chmod(0o755)
    common = {"group_wait": "1s", "group_interval": "3s"}
    notify = [
        {"exec": [str(program)], "events": ["backends", "peer-lost"], **common},
        {"webhook": "http://127.0.0.1:9/s3cret", **common},
        {"exec": ["/bin/sleep", "1000"], **common},
    ]
    with Lab() as lab:
        network = pair(lab)
        servers = {b.name: serve_tcp(b, [80]) for b in network.backends}
        daemons = {}
        web = service_of(network, announce=False, health=CHECK)
        for lb in network.lbs:
            (folder / lb.name).mkdir()
            file = write_config(
                folder / lb.name / "tula.yaml",
                {"web": web},
                load_balancers=network.balancers,
                api={"listen": "0.0.0.0:8420"},
                notify=notify if lb is network.lbs[0] else notify[:2],
            )
            daemons[lb.name] = Running(lb, file)
        made = Site(network, daemons, servers, told)
        with daemons["lb1"], daemons["lb2"]:
            for daemon in daemons.values():
                wait_until(
                    lambda daemon=daemon: daemon.status()["daemon"]["network"]["fingerprint"],
                    WITHIN,
                    "the gateway",
                )
            _introduce(made)
            made.wait_for("backend-1", "up")
            yield made


def _introduce(site: Site) -> None:
    one, other = site.network.lbs
    invited = call_tula(one, "peer", "add", "lb2")
    answered = call_tula(other, "peer", "accept", pasted=invited.stdout)
    call_tula(one, "peer", "accept", pasted=answered.stdout)

    def known() -> bool:
        found = [d.status()["peers"][0] for d in site.daemons.values()]
        return all(peer["alive"] and peer["configuration_equal"] for peer in found)

    wait_until(known, WITHIN, "the balancers know each other")


def test_one_of_both_tells_once(site: Site) -> None:
    site.down("backend-1")
    wait_until(lambda: site.changes("backend-1"), WITHIN, "it is told")
    site.up("backend-1")
    wait_until(lambda: len(site.changes("backend-1")) > 1, WITHIN, "that, too")
    # Until lb2 knows that it is told: it would tell later otherwise.
    wait_until(lambda: not site.receiver("lb2")["held"], WITHIN, "nothing is held")
    if site.sure:
        assert site.changes("backend-1") == [("lb1", "firing"), ("lb1", "resolved")]
        assert site.receiver("lb2")["sent"] == 0
    (subject,) = {m["subject"] for m in site.told if m["status"] == "firing"}
    assert subject.startswith("backend web/backend-1 down: ")


@pytest.mark.timeout(3600 if os.environ.get("TULA_SOAK") else 300)
def test_flaps_are_few_messages_that_leave_nothing_out(site: Site) -> None:
    before = len(site.told)
    for _ in range(FLAPS):
        site.down("backend-2")
        site.up("backend-2")
    numbers = {
        e["number"]
        for e in site.daemons["lb1"].events()
        if e["subject"] == "web/backend-2"
        and e["kind"] in ("backend-up", "backend-down")
        and not e["message"].startswith("was unknown")
    }
    assert len(numbers) >= 2 * FLAPS

    def counted() -> int:
        changes = [c for m in site.told[before:] for c in m["changes"]]
        mine = [c for c in changes if c["subject"] == "web/backend-2"]
        return sum(c["began"] + c["ended"] for c in mine)

    wait_until(lambda: counted() >= len(numbers), WITHIN, "all are told")
    wait_until(lambda: not site.receiver("lb2")["held"], WITHIN, "nothing is held")
    if site.sure:
        assert counted() == len(numbers), "and once"
        assert {m["balancer"] for m in site.told[before:]} == {"lb1"}
    print(f"{len(numbers)} changes were told in {len(site.told) - before} messages")
    dead, slow = site.receiver("lb1", 1), site.receiver("lb1", 2)
    assert (slow["sent"], dead["sent"]) == (0, 0)
    assert dead["failed"] > 0
    assert dead["error"]


def test_who_should_tell_is_killed(site: Site) -> None:
    before = len(site.told)
    lb1 = site.daemons["lb1"]
    site.servers.pop("backend-1").close()
    wait_until(lambda: lb1.states()["web/backend-1"] == "down", WITHIN)
    lb1.kill()
    wait_until(lambda: site.changes("backend-1")[-1][1] == "firing", WITHIN, "somebody tells")
    wait_until(
        lambda: [
            m
            for m in site.told
            if m["balancer"] == "lb2"
            and "lb2" not in m["subject"]
            and any(c["about"] == "peer-lost" for c in m["changes"])
        ],
        WITHIN,
        "that lb1 is lost",
    )
    site.servers["backend-1"] = serve_tcp(site.network.backends[0], [80])
    site.daemons["lb2"].wait_for(within=WITHIN, backend_1="up")
    wait_until(lambda: site.changes("backend-1")[-1] == ("lb2", "resolved"), WITHIN, "lb2 tells")
    lb1.start()
    wait_until(lambda: lb1.status()["peers"][0]["alive"], WITHIN)
    wait_until(
        lambda: not site.receiver("lb1")["held"] and not site.receiver("lb1")["waiting"], WITHIN
    )
    downs = [who for who, status in site.changes("backend-1") if status == "firing"]
    assert len(downs) <= 3, "two in doubt, and none again after the restart"
    assert len(site.told) > before


def test_a_test(site: Site) -> None:
    before = len(site.told)
    done = call_tula(site.network.lbs[1], "notify", "test", check=False)
    lines = done.stdout.splitlines()
    assert done.returncode == 1
    assert lines[0].startswith("exec append: sent in ")
    assert lines[1].startswith("webhook 127.0.0.1:9: FAILED in ")
    assert lines[1].endswith(": nobody listens there")
    assert len(lines) == 2
    shown = call_tula(site.network.lbs[1], "status").stdout
    assert re.search(r"^exec append +ok +\d+ ", shown, re.MULTILINE), shown
    assert "  webhook 127.0.0.1:9: nobody listens there" in shown
    assert [m["test"] for m in site.told[before:]] == [True]
    assert site.daemons["lb2"].figure("tula_notifications_total") > 0
