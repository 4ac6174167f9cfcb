"""Upgrades by the steps of docs/high-availability.md, with connections and datagrams: a pair, first
one, then the other; and a balancer from before pairs that becomes one of a pair.

::

    client-1 ── router ══ lan ══ lb1, lb2 (VRRP), backend-1, -2

Only in `make soak`.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

import tula
from support.connections import Connections, serve_connections
from support.datagrams import Datagrams, serve_datagrams
from support.lab_configurations import backends_of, write_config
from support.running import Running
from tula.dataplane.nft.schema import SCHEMA
from tula.lab import Cluster, Host, Lab, pair, wait_until
from tula.lab.process import Completed, Process
from tula.version import __version__

pytestmark = pytest.mark.kernel

COUNT = 500
VRRP = {"high_availability": {"vrrp": {"id": 84}}}
API = {"api": {"listen": "0.0.0.0:8420"}}
NEWER = "99.0"


class Machine(Running):
    """A daemon whose program can be replaced: ``source`` is what a package would bring, None for
    today's."""

    source: Path | None = None

    def launch(self, output: int) -> Process:
        return self.host.popen(
            [sys.executable, "-m", "tula", "run", "-f", self.configuration],
            stdout=output,
            stderr=output,
            env=self.environment(),
        )

    def environment(self) -> dict[str, str]:
        """With its program."""
        source = {"PYTHONPATH": str(self.source)} if self.source is not None else {}
        return self.host.environment() | source

    def tula(self, *words: str, check: bool = True, path: str = "") -> str:
        """A command on it."""
        return self.ran(*words, check=check, path=path).stdout

    def ran(self, *words: str, check: bool = True, path: str = "") -> Completed:
        """The same, with its exit status; ``path`` is where programs are found before others."""
        env = self.environment()
        env["PATH"] = f"{path}:{env['PATH']}" if path else env["PATH"]
        return self.host.run([sys.executable, "-m", "tula", *words], check=check, env=env)

    def upgrade(self, source: Path | None) -> None:
        """Another package, and ``systemctl restart tula``."""
        self.source = source
        self.stop()
        self.start()

    @property
    def schema(self) -> str:
        """The counters of its table that name one."""
        listed = self.host.run(["nft", "list", "counters", "table", "netdev", "tula"]).stdout
        return " ".join(re.findall(r"schema_\d+", listed))


def newer(folder: Path) -> Path:
    """Today's program as a version that writes another schema."""
    made = folder / "newer"
    shutil.copytree(Path(tula.__file__).parent, made / "tula")
    for name, old, new in (
        ("dataplane/nft/schema.py", f"SCHEMA = {SCHEMA}\n", f"SCHEMA = {SCHEMA + 1}\n"),
        ("version.py", f'"{__version__}"', f'"{NEWER}"'),
    ):
        path = made / "tula" / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))
    return made


def before_pairs(folder: Path) -> Path:
    """The program of the last commit that knows no pairs."""
    git = ["git", "-C", str(Path(__file__).parents[2])]
    module = "src/tula/model/high_availability.py"
    found = [*git, "log", "--diff-filter=A", "--format=%H", "--", module]
    first = subprocess.run(found, check=True, capture_output=True, text=True).stdout.split()
    assert first, "this needs the repository with its history"
    archive = [*git, "archive", f"{first[-1]}^:src"]
    packed = subprocess.run(archive, check=True, capture_output=True).stdout
    made = folder / "before"
    with tarfile.open(fileobj=io.BytesIO(packed)) as unpacked:
        unpacked.extractall(made, filter="data")
    return made


def write(network: Cluster, lb: Host, folder: Path, name: str = "tula.yaml", **top: Any) -> Path:
    """The configuration of both, as it is on one."""
    common = {
        "vip": list(network.vips),
        "forwarding": "l2",
        "backends": backends_of(*network.backends),
    }
    services = {
        "web": common | {"ports": [80]},
        "dns": common | {"ports": [53], "protocol": "udp"},
    }
    (folder / lb.name).mkdir(exist_ok=True)
    path = folder / lb.name / name
    return write_config(path, services, load_balancers=network.balancers, **top)


def serve(network: Cluster) -> None:
    for backend in network.backends:
        serve_connections(backend, 80)
        serve_datagrams(backend, 53)


def holders(network: Cluster) -> list[Host]:
    return [lb for lb in network.lbs if set(network.vips) <= set(lb.addresses("eth0"))]


def add_peer(asking: Machine, other: Machine, folder: Path) -> None:
    """``tula peer add --ssh``, by an ssh that leads to the other one."""
    places = " ".join(
        f"{name}={other.environment()[name]}" for name in ("TULA_STATE_DIR", "TULA_RUN_DIR")
    )
    script = folder / "ssh"
    script.write_text(
        "#!/bin/sh\nshift 2\n"
        f'exec nsenter -t {other.pid} -n env {places} {sys.executable} -m "$@"\n'
    )
    script.chmod(0o755)
    asking.tula("peer", "add", other.host.name, "--ssh", path=str(folder))


def peer_of(machine: Machine) -> dict[str, Any]:
    (found,) = machine.status()["peers"]
    return dict(found)


def wait_until_equal(*machines: Machine) -> None:
    """Step 1: ``tula status --check`` finds nothing on either."""
    for machine in machines:
        wait_until(
            lambda machine=machine: machine.ran("status", "--check", check=False).returncode == 0,
            60,
            f"no problem on {machine.host.name}",
        )


if os.environ.get("TULA_SOAK"):

    def test_a_pair_one_after_the_other(lab: Lab, tmp_path: Path) -> None:
        network = pair(lab)
        serve(network)
        with ExitStack() as stack:
            machines = {
                lb: stack.enter_context(Machine(lb, write(network, lb, tmp_path, **VRRP, **API)))
                for lb in network.lbs
            }
            (first,) = wait_until(lambda: holders(network))
            active = machines.pop(first)
            (standby,) = machines.values()
            add_peer(active, standby, tmp_path)
            probe = stack.enter_context(Datagrams(network.client, network.vips, 53, rate=500))
            opened = stack.enter_context(Connections(network.client, network.vips, 80, COUNT))
            # Those of one backend are not where the hash says: the other balancer has to be told.
            active.tula("weight", "web/backend-1", "0", "--everywhere")
            opened.wait_for_answers()
            wait_until_equal(active, standby)

            standby.upgrade(newer(tmp_path))
            assert (active.schema, standby.schema) == (f"schema_{SCHEMA}", f"schema_{SCHEMA + 1}")
            wait_until(lambda: peer_of(active)["version"] == NEWER, 60, "the other one's version")
            assert peer_of(standby)["version"] == __version__
            wait_until_equal(active, standby)
            assert holders(network) == [active.host], "who comes back takes nothing"
            opened.wait_for_answers()

            assert "another balancer has the VIPs" in active.tula("standby")
            assert holders(network) == [standby.host]
            opened.wait_for_answers()

            active.upgrade(standby.source)
            assert active.schema == f"schema_{SCHEMA + 1}"
            assert active.status()["standby"], "it lasts"
            active.tula("active")
            wait_until_equal(active, standby)
            assert peer_of(standby)["version"] == NEWER
            opened.wait_for_answers()
            told = [f"{event['kind']}: {event['message']}" for event in standby.events()]
            assert not [line for line in told if "differ" in line], told
            stack.pop_all().close()
        assert opened.found.broken == 0, opened.found
        assert len(opened.found.backends) == 2, opened.found
        assert probe.heard.lost == 0, probe.heard
        print(opened.found, probe.heard)

    def test_from_before_pairs(lab: Lab, tmp_path: Path) -> None:
        network = pair(lab)
        serve(network)
        lb1, lb2 = network.lbs
        with ExitStack() as stack:
            one = Machine(lb1, write(network, lb1, tmp_path))
            one.source = before_pairs(tmp_path)
            refused = one.ran(
                "check",
                "-f",
                str(write(network, lb1, tmp_path, "pair.yaml", **VRRP, **API)),
                check=False,
            )
            assert refused.returncode == 2
            assert "high_availability" in refused.stderr
            stack.enter_context(one)
            wait_until(lambda: holders(network) == [lb1])
            probe = stack.enter_context(Datagrams(network.client, network.vips, 53, rate=500))
            opened = stack.enter_context(Connections(network.client, network.vips, 80, COUNT))
            one.tula("weight", "web/backend-1", "0")

            one.upgrade(None)
            opened.wait_for_answers()
            one.tula("apply", "-f", str(tmp_path / "lb1/pair.yaml"), "--yes")
            other = stack.enter_context(Machine(lb2, write(network, lb2, tmp_path, **VRRP, **API)))
            wait_until(lambda: lb2.processes("keepalived"), 60)
            add_peer(one, other, tmp_path)
            other.tula("peer", "copy", "lb1", "--yes")
            wait_until_equal(one, other)
            assert holders(network) == [lb1], "who comes takes nothing"
            opened.wait_for_answers()

            assert "another balancer has the VIPs" in one.tula("standby")
            assert holders(network) == [lb2]
            opened.wait_for_answers()
            stack.pop_all().close()
        assert opened.found.broken == 0, opened.found
        assert len(opened.found.backends) == 2, opened.found
        assert probe.heard.lost == 0, probe.heard
        print(opened.found, probe.heard)
