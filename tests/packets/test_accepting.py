"""Who decides what runs: a saved file is no order, and what was accepted can be taken back.

::

    client ──┐
             ├── lan ── lb, VIPs 10.9.0.100 to .106 and fd09::100 to ::106 (a service each)
    backend ─┘
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.asking import Asking
from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.running import Running
from tula.lab import Lab, Network, flat, flows, serve_tcp, wait_until

pytestmark = pytest.mark.kernel

SERVICES = 7
KILLS = 60 if os.environ.get("TULA_SOAK") else 4


@pytest.fixture
def network(lab: Lab) -> Network:
    vips = [f"{net}{100 + n}" for n in range(SERVICES) for net in ("10.9.0.", "fd09::")]
    made = flat(lab, clients=1, backends=2, vips=vips)
    for backend in made.backends:
        serve_tcp(backend, [80])
    return made


def services(network: Network, number: int, **keys: Any) -> dict[str, Any]:
    return {
        f"s{n}": service_of(network, vip=[f"10.9.0.{100 + n}", f"fd09::{100 + n}"], **keys)
        for n in range(number)
    }


@pytest.fixture
def path(network: Network, tmp_path: Path) -> Path:
    return write_config(tmp_path / "tula.yaml", services(network, SERVICES))


@pytest.fixture
def daemon(network: Network, path: Path) -> Iterator[Running]:
    with Running(network.lb, path) as made:
        yield made


def names(daemon: Running) -> list[str]:
    return [service["name"] for service in daemon.status()["services"]]


def served(network: Network, number: int) -> bool:
    """Whether that service answers, on both of its addresses."""
    vips = (f"10.9.0.{100 + number}", f"fd09::{100 + number}")
    return all(flows(network.client, vip, 80, 3, "tcp") for vip in vips)


def test_a_file_that_is_saved_half(network: Network, daemon: Running, path: Path) -> None:
    lb, text = network.lb, path.read_text()
    write_config(path, services(network, 2))  # as much of it as a copy got done
    wait_until(lambda: daemon.status()["configuration"]["file_differs"], 60)
    shown = call_tula(lb, "status").stderr
    assert f"{path} differs from what runs (since " in shown
    assert "configuration-differs" in call_tula(lb, "events").stdout
    assert "- " in call_tula(lb, "plan").stdout, "what it would take away"
    os.kill(daemon.pid, signal.SIGHUP)
    wait_until(lambda: daemon.status()["daemon"]["configuration"]["refused"], 60)
    assert "tula reload --yes" in call_tula(lb, "status").stderr
    reloaded = call_tula(lb, "reload", check=False)
    assert (reloaded.returncode, reloaded.stdout) == (1, "")
    assert "this takes away 5 of 7 services: s2, s3, s4, s5 and s6\n" in reloaded.stderr
    assert len(names(daemon)) == SERVICES
    for number in range(SERVICES):
        assert served(network, number)

    other = path.with_name("other.yaml")
    other.write_text(text.replace("- 80", "- 80\n    - 81"))
    assert call_tula(lb, "apply", "-f", other).stderr == ""
    assert daemon.status()["services"][0]["ports"] == ["80", "81"], "from whatever path"
    call_tula(lb, "reload", "--yes")
    assert names(daemon) == ["s0", "s1"]
    accepted = [e for e in daemon.events() if e["kind"] == "configuration-accepted"]
    assert [event["by"] for event in accepted[-2:]] == ["root", "root"]


def test_what_is_not_confirmed_goes_back(network: Network, daemon: Running, path: Path) -> None:
    lb, state = network.lb, Path(network.lb.environment()["TULA_STATE_DIR"])
    before = (state / "document.yaml").read_bytes()
    other = write_config(path.with_name("other.yaml"), services(network, SERVICES - 1))
    with Asking(network.client, ["10.9.0.100", "fd09::100"], 80) as asking:
        done = call_tula(lb, "apply", "-f", other, "--confirm", "2s")
        assert done.stderr == "goes back in 2s unless you run tula confirm\n"
        assert len(names(daemon)) == SERVICES - 1
        assert (state / "document.yaml").read_bytes() == before
        wait_until(lambda: len(names(daemon)) == SERVICES, 60)
        assert served(network, SERVICES - 1)
        late = call_tula(lb, "confirm", check=False)
        assert (late.returncode, late.stdout) == (1, "")

        call_tula(lb, "apply", "-f", other, "--confirm", "10m")
        assert "goes back at " in call_tula(lb, "status").stderr
        assert call_tula(lb, "confirm").stdout == "confirmed\n"
        daemon.kill()
        daemon.start()
        assert len(names(daemon)) == SERVICES - 1, "accepted"
        asking.wait()
    assert asking.failures == []


def test_killed_at_any_moment_of_it(network: Network, daemon: Running, path: Path) -> None:
    """The daemon, the command, or both: the confirmed configuration runs."""
    lb, chance = network.lb, random.Random(11)
    other = write_config(path.with_name("other.yaml"), services(network, SERVICES - 1))
    with Asking(network.client, ["10.9.0.100", "fd09::100"], 80) as asking:
        for number in range(KILLS):
            command = lb.popen(
                [sys.executable, "-m", "tula", "apply", "-f", str(other), "--confirm", "10m"],
                env=lb.environment(),
            )
            if number % 3 == 0:
                command.wait(60)  # it runs, and waits to be confirmed
            else:
                time.sleep(chance.uniform(0, 1.0))
            if number % 2:
                command.kill()
            daemon.kill()
            command.wait(60)
            daemon.start()
            assert len(names(daemon)) == SERVICES, f"kill {number}"
            assert daemon.status()["configuration"]["confirm_until"] is None
            asking.wait(2)
    assert asking.failures == []


def test_the_way_back(network: Network, daemon: Running, path: Path) -> None:
    lb = network.lb
    secret = {"type": "http", "headers": {"Authorization": "Basic c2VjcmV0"}, "via": "direct"}
    call_tula(lb, "weight", "s0/backend-1", "7")
    write_config(path, services(network, SERVICES, health=secret))
    call_tula(lb, "reload")
    shown = call_tula(lb, "history").stdout
    assert "reload by root  (in force)\n" in shown
    assert shown.count("\n       ~ service s") == SERVICES
    assert "c2VjcmV0" not in shown + call_tula(lb, "diff").stdout
    assert '+        Authorization: "********"' in call_tula(lb, "diff").stdout
    state = Path(lb.environment()["TULA_STATE_DIR"])
    kept = [*state.glob("accepted-*"), state / "document.yaml"]
    assert len(kept) == 5
    assert {file.stat().st_mode & 0o777 for file in kept} == {0o600}

    back = call_tula(lb, "rollback")
    assert back.stdout == "configuration 1 runs\n"
    assert back.stderr.startswith(f"{path} now differs from what runs; ")
    assert daemon.backends()["s0/backend-1"]["effective_weight"] == 7, "an override stays"
    assert "Authorization" in path.read_text()
    assert call_tula(lb, "rollback", "1", "--write").stdout.endswith(f"{path} holds it now\n")
    assert "Authorization" not in path.read_text()
    wait_until(lambda: not daemon.status()["configuration"]["file_differs"], 60)
    assert call_tula(lb, "rollback", "99", check=False).returncode == 2
    daemon.stop()
    assert "rollback to 1 by root" in call_tula(lb, "history").stdout, "without a daemon, too"
    call_tula(lb, "rollback", "2")
    assert "Authorization" in (state / "document.yaml").read_text()


def test_the_last_that_serves_is_asked_for(network: Network, daemon: Running) -> None:
    lb = network.lb
    assert call_tula(lb, "drain", "s0/backend-1").stderr == ""
    for online in (True, False):
        if not online:
            daemon.stop()
        for command in ("drain", "disable"):
            refused = call_tula(lb, command, "s0/backend-2", check=False)
            assert (refused.returncode, refused.stdout) == (1, "")
            assert refused.stderr == (
                "tula: this leaves service s0 without a backend that takes new connections\n"
                "tula: repeat it with --yes to do it\n"
            )
    assert served(network, 0)
    assert call_tula(lb, "disable", "s0/backend-2", "--yes").returncode == 0
    assert not served_now(network)


def served_now(network: Network) -> bool:
    return bool(flows(network.client, "10.9.0.100", 80, 1, timeout=0.3, allow_loss=True))


def test_a_directory(network: Network, tmp_path: Path) -> None:
    lb, directory = network.lb, tmp_path / "conf.d"
    directory.mkdir()
    (directory / "10-base.yaml").write_text("interfaces: [eth0]\n")
    write_config(directory / "20-web.yaml", services(network, 1))
    text = (directory / "20-web.yaml").read_text()
    (directory / "20-web.yaml").write_text(text.replace("interfaces:\n- eth0\n", ""))
    with Running(lb, directory) as daemon:
        assert names(daemon) == ["s0"]
        assert served(network, 0)
        (directory / "30-again.yaml").write_text("interfaces: [eth0]\n")
        wait_until(lambda: daemon.status()["configuration"]["file_differs"], 60)
        refused = call_tula(lb, "reload", check=False)
        assert refused.returncode == 2
        assert refused.stderr == (
            f"{directory}/30-again.yaml:1:1: interfaces: also given at 10-base.yaml:1:1; keep one\n"
        )
        assert f"{directory}/30-again.yaml:1:1: " in daemon.log.split("configuration-refused")[-1]
        daemon.kill()
        daemon.start()
        assert names(daemon) == ["s0"]
