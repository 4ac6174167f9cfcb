"""The systemd unit that joins again."""

from __future__ import annotations

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
        "--state-dir",
        str(tmp_path / "state"),
    ]
    assert unit.command[0].startswith("/")
    assert UnitFile.parse(Unit(Path("/var/lib/tula")).text()).command[-1] == "join"


def test_it_is_there_when_it_is_as_it_must_be(tmp_path: Path) -> None:
    unit = Unit(tmp_path, tmp_path)
    assert not unit.is_there()
    unit.path.write_text(unit.text())
    assert unit.is_there()
    unit.path.write_text(unit.text() + "#")
    assert not unit.is_there()
