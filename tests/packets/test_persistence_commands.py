"""``tula persistence list`` and ``clear``, and ``tula trace``, say of clients what packets do.

::

    client-1 (10 clients of each family, as raw packets)      lb        backend-1 … 4
         │                                                    │             │   (VIPs on lo)
    ═════╧════════════════════════════════════════════════════╧═════════════╧═════  lan
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from support.crowd import Crowd
from support.in_process import call_tula
from support.lab_configurations import backends_of, service_of, write_config
from support.packets import FAMILIES, vip_of
from support.persistent import one
from support.running import Running
from tula.lab import Network
from tula.lab.process import Completed

pytestmark = pytest.mark.kernel

CLIENTS = range(10)
CONTROL, DATA = 21, 30050


@dataclass
class Ftp:
    """A control and a data connection on services of their own, which share a scope."""

    network: Network
    path: Path
    crowds: dict[int, Crowd]

    def write(self, **weights: int) -> Path:
        hosts = {f"b{n}": host for n, host in enumerate(self.network.backends, 1)}
        backends: dict[str, Any] = {}
        for name, weight in weights.items():
            backends |= backends_of(hosts[name], weight=weight)
        settings = {"timeout": "5m", "scope": "ftp"}
        services = {
            name: service_of(
                self.network,
                ports=ports,
                scheduler=scheduler,
                persistence=settings,
                backends=backends,
            )
            for name, ports, scheduler in (
                ("control", [CONTROL], "rr"),
                ("data", ["30000-30100"], "maglev"),
            )
        }
        return write_config(self.path, services)

    def apply(self, **weights: int) -> None:
        self.tula("apply", "-f", self.write(**weights), "--yes")

    def tula(self, *words: str | Path, check: bool = True) -> Completed:
        return call_tula(self.network.lb, *words, check=check)

    def connect(self, family: int, port: int) -> dict[str, str]:
        """The backend of a new connection of each client, by its address."""
        crowd = self.crowds[family]
        found = one(crowd.connect(CLIENTS, 1, port))
        return {crowd.address(client): name for client, name in found.items()}

    def listed(self, *words: str) -> dict[str, str | None]:
        """The backends of the clients that are listed."""
        found = json.loads(self.tula("persistence", "list", *words, "--json").stdout)
        assert found["complete"]
        for entry in found["clients"]:
            assert (entry["scope"], entry["services"]) == ("ftp", ["control", "data"])
            assert entry["seconds"] > 0
        return {e["client"].partition("/")[0]: e["backend"] for e in found["clients"]}

    def reason(self, service: str, backend: str) -> str:
        """What status says of a backend."""
        found = json.loads(self.tula("status", service, "--json").stdout)["services"][0]["backends"]
        return next(str(each["reason"]) for each in found if each["name"] == backend)

    def trace(self, family: int, client: str, port: int) -> dict[str, Any]:
        vip = vip_of(self.network, family)
        target, asker = (
            (f"[{vip}]:{port}", f"[{client}]:7")
            if family == 6
            else (f"{vip}:{port}", f"{client}:7")
        )
        found: dict[str, Any] = json.loads(
            self.tula("trace", target, "--client", asker, "--json").stdout
        )
        return found


@pytest.fixture
def ftp(four_backends: Network, tmp_path: Path) -> Iterator[Ftp]:
    with ExitStack() as stack:
        crowds = {
            family: stack.enter_context(
                Crowd(four_backends, four_backends.client, vip_of(four_backends, family)).here()
            )
            for family in FAMILIES
        }
        made = Ftp(four_backends, tmp_path / "tula.yaml", crowds)
        try:
            yield made
        finally:
            made.tula("clear", check=False)


@pytest.mark.parametrize("daemon", [False, True], ids=["without-a-daemon", "with-a-daemon"])
def test_commands_and_packets_agree(ftp: Ftp, daemon: bool) -> None:
    with ExitStack() as stack:
        if daemon:
            stack.enter_context(Running(ftp.network.lb, ftp.write(b1=100, b2=100)))
        else:
            ftp.apply(b1=100, b2=100)
        assert ftp.tula("persistence", "list").stdout == "no clients are remembered\n"
        at: dict[str, str] = {}
        for family in FAMILIES:
            at |= (mine := ftp.connect(family, CONTROL))
            assert ftp.connect(family, DATA) == mine, "the data connection follows"
            assert set(mine.values()) == {"backend-1", "backend-2"}
        assert ftp.listed() == at
        # Case: a fourth backend, a drain and a weight move no second connection.
        for weights in ({"b1": 100, "b2": 100, "b3": 300}, {"b1": 0, "b2": 7, "b3": 300}):
            ftp.apply(**weights)
            for family in FAMILIES:
                assert ftp.connect(family, DATA).items() <= at.items()
        for family in FAMILIES:
            clients = [ftp.crowds[family].address(client) for client in CLIENTS]
            for client in clients:
                for port in (CONTROL, DATA):
                    found = ftp.trace(family, client, port)
                    assert found["backend"] == at[client]
                    assert f"persistence holds client {client} at" in found["reason"]
                    assert found["persistence"]["kept"] is True
            moved = next(client for client in clients if at[client] == "backend-1")
            assert ftp.listed("data", "--client", moved) == {moved: "backend-1"}
            told = ftp.tula("persistence", "clear", moved, "--service", "control").stdout
            assert told.startswith(f"forgot 1 entry of client {moved} in control, data: ")
            assert ftp.listed("--client", moved) == {}
            expected = ftp.trace(family, moved, DATA)
            assert f"no entry for client {moved} yet; maglev hashes" in expected["reason"]
            turn = ftp.trace(family, moved, CONTROL)
            assert (turn["backend"], turn["persistence"]) == (None, None)
            then = ftp.connect(family, DATA)
            assert then[moved] == expected["backend"] != "backend-1", "it drains"
            assert {c: b for c, b in then.items() if c != moved}.items() <= at.items()
            at |= then
        unsure = ftp.tula("persistence", "clear", check=False)
        assert unsure.returncode == 1
        assert "that forgets every client of control, data" in unsure.stderr
        assert ftp.listed() == at
        ftp.tula("persistence", "clear", "--yes")
        assert ftp.listed() == {}
        wrong = ftp.tula("persistence", "list", "nobody", check=False)
        assert wrong.returncode == 2
        assert wrong.stderr == "tula: no service 'nobody' in the running configuration\n"
        assert json.loads(ftp.tula("status", "--json").stdout)["kernel"]["in_sync"]


def test_a_drained_backend_keeps_its_clients_until_they_are_released(ftp: Ftp) -> None:
    ftp.apply(b1=100, b2=100, b3=100)
    at = ftp.connect(4, CONTROL)
    told = ftp.tula("drain", "control/backend-2").stdout
    assert "no new connections but those of the persistent clients that it has" in told
    assert told.endswith("; to release them: tula drain control/backend-2 --release\n")
    assert ftp.reason("control", "backend-2") == (
        "drained by the operator; keeps its persistent clients"
    )
    assert ftp.connect(4, CONTROL) == at
    told = ftp.tula("drain", "control/backend-2", "--release").stdout
    assert told == ("control/backend-2: draining: no new connections, existing ones continue\n")
    assert "persistent clients are released" in ftp.reason("control", "backend-2")
    then = ftp.connect(4, CONTROL)
    assert "backend-2" not in then.values()
    assert {c: b for c, b in then.items() if at[c] != "backend-2"} == {
        c: b for c, b in at.items() if b != "backend-2"
    }


def test_a_client_of_a_backend_that_is_disabled_is_chosen_for_again(ftp: Ftp) -> None:
    ftp.apply(b1=100, b2=100, b3=100)
    at = ftp.connect(4, CONTROL)
    client = next(c for c, backend in at.items() if backend == "backend-2")
    ftp.tula("disable", "data/backend-2")
    found = ftp.trace(4, client, DATA)
    assert "at backend-2, which is disabled and takes no clients; maglev hashes" in found["reason"]
    assert found["persistence"]["kept"] is False
    assert ftp.trace(4, client, CONTROL)["backend"] == "backend-2", "it is not disabled there"
    then = ftp.connect(4, DATA)
    assert then[client] == found["backend"] != "backend-2"
    assert {c: b for c, b in then.items() if b != "backend-2" and at[c] != "backend-2"} == {
        c: b for c, b in at.items() if b != "backend-2"
    }
