"""The systemd unit that joins again."""

from __future__ import annotations

import shlex
from pathlib import Path

from support.unit_file import UnitFile
from tula.agent.unit import Unit


def test_it_joins_what_was_joined_last(tmp_path: Path) -> None:
    unit = UnitFile.parse(Unit(tmp_path / "state").text())
    assert unit.command[1:] == [
        "-m",
        "tula",
        "backend",
        "join",
        "--no-persist",
        "--state-dir",
        str(tmp_path / "state"),
        "--watch",
    ]
    assert unit.command[0].startswith("/")
    (reload,) = unit.sections["Service"]["ExecReload"]
    assert reload == shlex.join(unit.command[:-1])
    default = UnitFile.parse(Unit(Path("/var/lib/tula")).text())
    assert default.command[-3:] == ["join", "--no-persist", "--watch"]


def test_it_has_few_rights(tmp_path: Path) -> None:
    unit = UnitFile.parse(Unit(tmp_path / "a 50% state").text())
    capabilities = set(unit.words("CapabilityBoundingSet"))
    assert capabilities == {"CAP_NET_ADMIN", "CAP_SYS_MODULE", "CAP_CHOWN", "CAP_DAC_OVERRIDE"}
    (writable,) = unit.sections["Service"]["ReadWritePaths"]
    assert writable == f'"-{tmp_path}/a 50%% state"'


def test_it_is_there_when_it_is_as_it_must_be(tmp_path: Path) -> None:
    unit = Unit(tmp_path, tmp_path)
    assert not unit.is_there()
    unit.path.write_text(unit.text())
    assert unit.is_there()
    unit.path.write_text(unit.text() + "#")
    assert not unit.is_there()
