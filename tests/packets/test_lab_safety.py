"""The lab keeps off the machine's own network, and leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from tula.lab import (
    Capture,
    Lab,
    LabError,
    Namespace,
    Network,
    flat,
    remove_named,
    require_private_namespace,
    serve_http,
    serve_tcp,
    serve_udp,
    tcp_flow,
    wait_until,
)
from tula.lab import guard as guard_module
from tula.lab.guard import current_namespace, machine_namespace

pytestmark = pytest.mark.kernel

# ── Keeping off the machine's network ────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/proc/1/ns/net", "/proc/2/ns/net", "/proc/self/ns/net"])
def test_the_machines_own_namespace_is_refused(path: str) -> None:
    with pytest.raises(LabError):
        Namespace.open(path)


def test_a_descriptor_of_the_machines_own_namespace_is_refused_and_closed() -> None:
    descriptor = os.open("/proc/self/ns/net", os.O_RDONLY)
    with pytest.raises(LabError, match="refused"):
        Namespace(descriptor)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def test_the_guard_tells_the_machines_namespace_from_a_private_one(lab: Lab) -> None:
    assert current_namespace() == machine_namespace(), "run the tests in the machine's namespace"
    with pytest.raises(LabError, match="machine's own"):
        require_private_namespace()
    with lab.host("a").enter():
        require_private_namespace()


def test_tula_does_not_run_where_the_guard_says_no(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    host = lab.host("a")
    monkeypatch.setattr(guard_module, "machine_namespace", lambda: host.namespace.id)
    with pytest.raises(LabError, match="machine's own"):
        host.tula("status")
    with pytest.raises(LabError, match="machine's own"):
        host.start_tula("run")
    with pytest.raises(LabError, match="machine's own"):
        host.write_sysctl("net.ipv4.ip_forward", 1)


def test_without_root_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(LabError, match="needs root"), Lab():
        pass


def test_the_machines_interfaces_stay_as_they_are() -> None:
    def interfaces() -> str:
        return subprocess.check_output(["ip", "-o", "addr"], text=True)

    before = interfaces()
    with Lab() as lab:
        flat(lab)
        assert interfaces() == before
    assert interfaces() == before


# ── Nothing stays ────────────────────────────────────────────────────────────────────────────


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def children() -> set[str]:
    ours = Path("/proc/self/task").glob("*/children")
    return {pid for listed in ours for pid in listed.read_text().split()}


def busy_network(lab: Lab) -> Network:
    """Servers, a connection, a capture, a program with a child of its own, state on the disk."""
    network = flat(lab)
    serve_http(network.backends[0], 80)
    serve_udp(network.backends[0], [53])
    serve_tcp(network.lb, [7])
    tcp_flow(network.client, "10.9.0.2", 7)
    Capture(network.lb).start()
    network.lb.environment()
    return network


def broken_network(lab: Lab) -> None:
    busy_network(lab)
    raise RuntimeError("half of it stands")


def test_descriptors_threads_and_children_are_gone_after_a_failure(lab: Lab) -> None:
    serve_tcp(lab.host("warm"), [])  # the loop's thread is started once a process, and stays
    before = descriptors(), children(), threading.active_count()
    with pytest.raises(RuntimeError, match="half"), Lab() as broken:
        broken_network(broken)
    assert (descriptors(), children(), threading.active_count()) == before


def test_namespaces_programs_and_state_are_gone(lab: Lab) -> None:
    """A cable is laid from here into the other lab: it goes when that namespace goes."""
    switch = lab.switch()
    with Lab() as busy:
        network = busy_network(busy)
        program = network.lb.popen(
            ["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE
        )
        assert program.stdout is not None
        grandchild = int(program.stdout.readline())
        state = Path(network.lb.environment()["TULA_STATE_DIR"])
        switch.plug(network.lb.namespace, "probe", "probe", "02:00:00:00:00:01")
        assert switch.ports() == ["probe"]
        assert state.is_dir()
    assert not state.parents[1].exists()
    wait_until(lambda: not Path(f"/proc/{grandchild}").exists(), what="the grandchild's end")
    wait_until(lambda: switch.ports() == [], what="the end of the namespace")


def test_state_of_a_killed_lab_is_swept_by_a_later_one(tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tempfile, "tempdir", str(tmp_path))
        old, new = tmp_path / "tula-lab-old", tmp_path / "tula-lab-new"
        for directory in (old, new):
            directory.mkdir()
        os.utime(old, (0, 0))
        with Lab() as outer:
            held = outer.host("a").directory.parent
            os.utime(held, (0, 0))
            with Lab():
                assert held.is_dir(), "that lab lives"
        assert sorted(tmp_path.iterdir()) == [new]


_VICTIM = """
import sys, time
from tula.lab import Lab, flat, serve_http
with Lab() as lab:
    network = flat(lab)
    serve_http(network.backends[0], 80)
    sleeper = network.lb.popen(["sleep", "600"])
    print(network.lb.namespace.fileno(), sleeper.pid, flush=True)
    time.sleep(600)
"""


def test_a_killed_lab_leaves_nothing(lab: Lab, tmp_path: Path) -> None:
    switch = lab.switch()
    with subprocess.Popen(
        [sys.executable, "-c", _VICTIM],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as victim:
        assert victim.stdout is not None
        descriptor, sleeper = victim.stdout.readline().split()
        inside = Namespace.open(f"/proc/{victim.pid}/fd/{descriptor}")
        switch.plug(inside, "probe", "probe", "02:00:00:00:00:01")
        inside.close()
        assert switch.ports() == ["probe"]
        victim.send_signal(signal.SIGKILL)
        victim.wait()
        wait_until(lambda: not Path(f"/proc/{sleeper}").exists(), 30, "the sleeper's end")
        wait_until(lambda: switch.ports() == [], 30, "the end of the namespace")


def test_a_named_lab_is_reached_by_ip_netns_and_goes() -> None:
    prefix = f"tulatest{os.getpid()}"
    with Lab(named=prefix) as lab:
        host = lab.host("a", lab.switch(), "10.9.0.1/24")
        seen = subprocess.check_output(
            ["nsenter", f"--net=/run/netns/{prefix}-a", "ip", "addr"], text=True
        )
        assert "10.9.0.1/24" in seen
        with pytest.raises(LabError, match="already"), Lab(named=prefix):
            pass
        assert host.environment()["TULA_STATE_DIR"] == f"/run/tula-lab/{prefix}/a/state"
    assert not list(Path("/run/netns").glob(f"{prefix}-*"))
    assert not Path(f"/run/tula-lab/{prefix}").exists()


def test_a_kept_lab_stays_until_it_is_removed_and_nothing_else_goes() -> None:
    prefix = f"tulatest{os.getpid()}"
    with Lab(named=f"{prefix}-other") as other:
        other.host("x")
        try:
            with Lab(named=prefix, keep=True) as lab:
                sleeper = lab.host("a").popen(["sleep", "600"])
            assert sleeper.poll() is None
            assert Path(f"/run/netns/{prefix}-a").exists()
        finally:
            assert remove_named(prefix) == [f"{prefix}-a"]
        assert sleeper.wait(60) == -signal.SIGKILL
        assert not Path(f"/run/netns/{prefix}-a").exists()
        assert Path(f"/run/netns/{prefix}-other-x").exists()
    assert remove_named(prefix) == []


def test_a_kept_lab_that_failed_is_not_kept() -> None:
    prefix = f"tulatest{os.getpid()}"
    with pytest.raises(RuntimeError), Lab(named=prefix, keep=True) as lab:
        broken_network(lab)
    assert not Path(f"/run/netns/{prefix}-lb").exists()
