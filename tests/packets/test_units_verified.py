"""systemd itself reads the units: the daemon's, and the one that a backend writes."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from support.debian import Debian
from support.unit_file import SHIPPED, UnitFile
from tula.agent.unit import NAME, Unit
from tula.lab import Lab

pytestmark = pytest.mark.kernel

# Where pip installs it: /usr of the tree is that of all tests.
DAEMON = SHIPPED.read_text().replace("/usr/bin/tula", "/opt/tula/bin/tula")
ENGINES = ("tula-keepalived.service", "tula-bird.service")
TEXTS = {
    NAME: Unit(Path("/var/lib/tula/x y")).text(),
    SHIPPED.name: DAEMON,
    **{
        name: SHIPPED.with_name(name).read_text().replace("/usr/sbin/", "/opt/tula/bin/")
        for name in ENGINES
    },
}


@pytest.fixture
def debian(lab: Lab, tmp_path: Path) -> Debian:
    return Debian(lab.host("lb", lab.switch()), tmp_path)


def complaints(debian: Debian, name: str, text: str) -> str:
    """What systemd-analyze has to say of the unit; the programs that it starts are there."""
    (line,) = UnitFile.parse(text).sections["Service"]["ExecStart"]
    program = debian.tree / shlex.split(line)[0].lstrip("/")
    program.parent.mkdir(parents=True, exist_ok=True)
    program.touch(mode=0o755)
    (debian.tree / "etc/systemd/system" / name).write_text(text)
    done = debian.run("systemd-analyze", "verify", "--man=no", name, check=False)
    found = [line for line in (done.stdout + done.stderr).splitlines() if name in line]
    return "\n".join(found)


@pytest.mark.parametrize("name", TEXTS)
def test_systemd_takes_the_unit(debian: Debian, name: str) -> None:
    assert complaints(debian, name, TEXTS[name]) == ""
    wrong = TEXTS[name].replace("[Service]\n", "[Service]\nWatchdogSek=30\n")
    assert "'WatchdogSek'" in complaints(debian, name, wrong), "it would have told"


@pytest.mark.parametrize("name", ENGINES)
def test_systemd_takes_the_path_unit(debian: Debian, name: str) -> None:
    """It starts the service of the same name."""
    path = name.replace(".service", ".path")
    for unit in (name, path):
        text = SHIPPED.with_name(unit).read_text()
        (debian.tree / "etc/systemd/system" / unit).write_text(text)
    done = debian.run("systemd-analyze", "verify", "--man=no", path, check=False)
    assert [line for line in (done.stdout + done.stderr).splitlines() if path in line] == []


def test_a_daemon_that_hangs_is_replaced() -> None:
    """By the main process alone: a probe's script cannot speak for it."""
    service = UnitFile.parse(TEXTS[SHIPPED.name]).sections["Service"]
    assert service["Type"] == ["notify"]
    assert service["NotifyAccess"] == ["main"]
    assert service["WatchdogSec"] == ["30"]
    assert service["Restart"] == ["always"]
