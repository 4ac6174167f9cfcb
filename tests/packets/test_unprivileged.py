"""Who is not root is told so in one line, and changes nothing.

::

    lb  eth0 10.9.0.2 ════ lan ════ backend-1 10.9.0.11
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from support.in_process import InProcess
from support.lab_configurations import service_of, write_config
from support.snapshots import snapshot
from tula.lab import Host, Lab, Network, flat
from tula.lab.process import Completed

pytestmark = pytest.mark.kernel

# Reading is left to them: the checkout may stand in a directory that is closed to others.
READ = "dac_read_search"
NOBODY = (
    *("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"),
    *(f"--inh-caps=+{READ}", f"--ambient-caps=+{READ}", f"--bounding-set=-all,+{READ}"),
)


@pytest.fixture
def network(lab: Lab) -> Network:
    return flat(lab, clients=0, backends=1)


def as_nobody(host: Host, directory: Path, *arguments: str) -> Completed:
    """tula by a user without rights, who may read and write all of the directory."""
    environment = host.environment() | {"TULA_STATE_DIR": str(directory / "state")}
    command = [*NOBODY, sys.executable, "-m", "tula", *arguments]
    return host.run(command, env=environment, check=False)


@pytest.fixture
def directory(network: Network) -> Iterator[Path]:
    """A place that everyone may read, with a configuration; pytest's own is closed to others."""
    with TemporaryDirectory() as name:
        made = Path(name)
        made.chmod(0o755)
        write_config(made / "tula.yaml", {"web": service_of(network)}).chmod(0o644)
        yield made


CASES = [("closed", "apply"), *(("open", name) for name in ("apply", "clear", "plan", "status"))]


def test_what_needs_root_says_so(network: Network, directory: Path) -> None:
    """With a state directory that cannot be written, and with one that can."""
    lb, configuration, state = network.lb, directory / "tula.yaml", directory / "state"
    InProcess(lb).apply(configuration)
    state.mkdir()
    (state / "document.yaml").write_bytes(configuration.read_bytes())
    before = snapshot(lb)
    for rights, command in CASES:
        os.chown(state, *((65534, 65534) if rights == "open" else (0, 0)))
        done = as_nobody(lb, directory, command)
        assert (done.returncode, done.stdout) == (1, ""), command
        assert done.stderr.startswith("tula: "), command
        assert done.stderr.endswith("; this needs root (CAP_NET_ADMIN and CAP_NET_RAW)\n")
        assert done.stderr.count("\n") == 1
    assert snapshot(lb) == before
    assert (state / "document.yaml").read_bytes() == configuration.read_bytes()


def test_what_does_not_need_root(network: Network, directory: Path) -> None:
    """A configuration can be checked, and a flow traced, by anyone."""
    configuration = str(directory / "tula.yaml")
    checked = as_nobody(network.lb, directory, "check", "-f", configuration)
    assert checked.returncode == 0
    assert all(line.startswith("warning: ") for line in checked.stderr.splitlines())
    flow = ["10.9.0.100:80", "--client", "10.9.0.9:1234"]
    traced = as_nobody(network.lb, directory, "trace", *flow, "-f", configuration)
    assert traced.stdout.startswith("web/backend-1: ")
