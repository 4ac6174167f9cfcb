"""The daemon's start and end, by configurations good and bad, and who else may change things.

::

    client-1            lb  VIP 10.9.0.100, fd09::100        backend-1, -2
        │                │                                     │   (VIPs on lo)
    ════╧════════════════╧═════════════════════════════════════╧═════  lan
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.in_process import InProcess, call_tula
from support.lab_configurations import service_of, write_config
from support.running import Running
from support.snapshots import observe, snapshot, without_guard
from tula.lab import Lab, Network, flat, flows, serve_tcp, wait_until

pytestmark = pytest.mark.kernel


@pytest.fixture
def network(lab: Lab) -> Network:
    made = flat(lab, clients=1, backends=2)
    for backend in made.backends:
        serve_tcp(backend, [80, 81])
    return made


def put(network: Network, directory: Path, *ports: int, **keys: object) -> Path:
    """The configuration, with web on these ports."""
    web = service_of(network, ports=list(ports), **keys)
    return write_config(directory / "tula.yaml", {"web": web})


def put_wrong(directory: Path) -> Path:
    path = directory / "tula.yaml"
    path.write_text("interfaces: [eth0]\nservices: {}\nfrobs: 1\n")
    return path


def served(network: Network) -> bool:
    return bool(flows(network.client, network.vip4, 80, 5, "tcp"))


def refused(daemon: Running) -> str:
    found = daemon.status()["daemon"]["configuration"]["refused"]
    return str(found["problems"][0]["message"]) if found else ""


def test_a_start_with_nothing_good_ends_with_the_errors(network: Network, tmp_path: Path) -> None:
    lb, configuration = network.lb, tmp_path / "tula.yaml"
    before = snapshot(lb)
    for put_in_place, words in [
        (lambda: None, f"{configuration}: no such file"),
        (lambda: put_wrong(tmp_path), f"{configuration}:3:1: frobs: unknown key"),
        (
            lambda: put(network, tmp_path, 80, backends={"far": {"address": "192.0.2.9"}}),
            f"{configuration}:",
        ),
    ]:
        put_in_place()
        done = lb.tula("run", "-f", configuration, check=False)
        assert done.returncode == 2
        told = [line for line in done.stderr.splitlines() if not line.startswith("timestamp=")]
        assert len(told) == 1, done.stderr
        assert told[0].lower().startswith(words.lower()), done.stderr
        assert snapshot(lb) == before


def test_the_last_good_document_runs_on(network: Network, tmp_path: Path) -> None:
    """Refused or missing, while it runs and at its start; and what is good again is taken."""
    lb, configuration = network.lb, put(network, tmp_path, 80)
    with Running(lb, configuration) as daemon:
        put_wrong(tmp_path)
        reloaded = call_tula(lb, "reload", check=False)
        assert reloaded.returncode == 2
        assert reloaded.stderr.startswith(f"{configuration}:3:1: frobs: unknown key")
        assert refused(daemon).startswith("unknown key")
        told = daemon.log.split("configuration-refused")[-1]
        assert f"{configuration}:3:1: frobs: unknown key" in told
        assert served(network)
        configuration.unlink()
        for again in (False, True):
            if again:
                daemon.stop()
                daemon.start()  # after a reboot there is no more than after this
            wait_until(lambda: refused(daemon).startswith("no such file"), 60)
            assert served(network)
            loud = call_tula(lb, "status").stderr
            assert loud.startswith(f"WARNING: {configuration} has been refused since ")
            assert loud.endswith("; the previous configuration still runs\n")
            assert "no such file" in daemon.log.split("configuration-refused")[-1]
        put(network, tmp_path, 80, 81)
        wait_until(lambda: daemon.status()["configuration"]["file_differs_since"], 60)
        assert daemon.status()["services"][0]["ports"] == ["80"], "nobody had it accepted"
        call_tula(lb, "reload")
        wait_until(lambda: daemon.status()["services"][0]["ports"] == ["80", "81"], 60)
        assert refused(daemon) == ""
        assert call_tula(lb, "status").stderr == ""
        assert not InProcess(lb).plan(configuration)


def test_sighup_reads_the_document(network: Network, tmp_path: Path) -> None:
    """Even where nobody would notice that it is another one."""
    configuration = put(network, tmp_path, 80)
    with Running(network.lb, configuration) as daemon:
        stamp = configuration.stat()
        text = configuration.read_text().replace("- 80", "- 81")
        with configuration.open("r+") as handle:
            handle.write(text)
        os.utime(configuration, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
        os.kill(daemon.pid, signal.SIGHUP)
        wait_until(lambda: daemon.status()["services"][0]["ports"] == ["81"], 60)


def test_who_else_would_change_things_is_refused(network: Network, tmp_path: Path) -> None:
    lb, configuration = network.lb, put(network, tmp_path, 80)
    with Running(lb, configuration) as daemon:
        state = lb.environment()["TULA_STATE_DIR"]
        before = snapshot(lb)
        elsewhere = ("--run-dir", tmp_path / "elsewhere")
        for options in ((), elsewhere):
            second = call_tula(lb, "run", "-f", configuration, *options, check=False)
            assert second.returncode == 1
            assert second.stderr == f"tula: {state}: a daemon runs here already\n"
            cleared = call_tula(lb, "clear", *options, check=False)
            assert (cleared.returncode, cleared.stdout) == (1, "")
            assert cleared.stderr.count("\n") == 1
        third = lb.tula("run", "-f", configuration, "--state-dir", tmp_path / "state", check=False)
        assert third.returncode == 1
        told = [line for line in third.stderr.splitlines() if not line.startswith("timestamp=")]
        assert told == [
            f"tula: {lb.environment()['TULA_RUN_DIR']}/tula.sock: a daemon runs here already"
        ]
        for command in ("apply", "drain web/backend-1"):
            done = call_tula(lb, *command.split(), *elsewhere, check=False)
            assert (done.returncode, done.stdout) == (1, "")
            assert "a daemon runs here, and does not listen on" in done.stderr

        assert call_tula(lb, "apply", "-f", configuration).stdout == "nothing changed\n"
        assert snapshot(lb) == before
        assert daemon.problems == ""


@pytest.mark.parametrize("clears", [False, True], ids=["sigterm", "clear-on-exit"])
def test_the_end(network: Network, tmp_path: Path, clears: bool) -> None:
    """Traffic goes on without it, unless that was not wanted."""
    lb, configuration = network.lb, put(network, tmp_path, 80)
    bare = snapshot(lb)
    daemon = Running(lb, configuration, *(["--clear-on-exit"] if clears else []))
    daemon.start()
    assert served(network)
    running = snapshot(lb)
    assert daemon.stop() == 0
    run_dir = Path(lb.environment()["TULA_RUN_DIR"])
    assert not (run_dir / "tula.sock").exists()
    if clears:
        assert snapshot(lb) == bare
        assert observe(lb) is None
    else:
        assert snapshot(lb) == without_guard(running)
        assert served(network)
        assert call_tula(lb, "clear").stdout.startswith("- ")
