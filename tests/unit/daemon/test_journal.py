"""Priorities of lines for the journal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tula.daemon.journal import is_journal, prefix_level, prefixed


def run(*arguments: str, journal: bool, code: str = "") -> list[str]:
    """The lines that a program writes to standard error: the command, or some code with it."""
    read, write = os.pipe()
    found = os.fstat(write)
    stream = f"{found.st_dev}:{found.st_ino}" if journal else "1:1"
    command = ["-c", code] if code else ["-m", "tula", *arguments]
    with os.fdopen(read) as reader:
        subprocess.run(
            [sys.executable, *command],
            stderr=write,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "JOURNAL_STREAM": stream},
            check=False,
        )
        os.close(write)
        return reader.read().splitlines()


def test_errors_of_commands_are_errors_in_the_journal(tmp_path: Path) -> None:
    """A unit's ExecStart and ExecReload: what they refuse has its place there, and a priority."""
    file = tmp_path / "tula.yaml"
    file.write_text("interfaces: [eth0]\nservices: {}\nfrobs: 1\nknobs: 2\n")
    plain = run("check", "-f", str(file), journal=False)
    assert [line.partition(" ")[0] for line in plain] == [f"{file}:3:1:", f"{file}:4:1:"]
    assert run("check", "-f", str(file), journal=True) == [f"<3>{line}" for line in plain]


CODE = """
import structlog, sys
from tula.daemon.journal import mark_errors
from tula.daemon.run import _configure_log
mark_errors()
mark_errors()
_configure_log()
structlog.get_logger().warning("backend-down", message="a\\nb")
structlog.get_logger().info("backend-up")
print("one\\ntwo", file=sys.stderr)
print("warning: three", "four", file=sys.stderr)
sys.stderr.write("five")
sys.stderr.write(" six\\n\\n")
raise ValueError("seven\\neight")
"""


def test_every_line_has_its_priority() -> None:
    lines = run(journal=True, code=CODE)
    head, trace = lines[:7], lines[7:]
    assert head == [
        "<4>level=warning event=backend-down message=a\\nb",
        "<6>level=info event=backend-up",
        "<3>one",
        "<3>two",
        "<4>warning: three four",
        "<3>five six",
        "<3>",
    ]
    assert trace[-2:] == ["<3>ValueError: seven", "<3>eight"]
    assert all(line.startswith("<3>") for line in trace)
    assert not [line for line in run(journal=False, code=CODE) if line.startswith("<")]


@pytest.mark.parametrize(
    ("level", "expected"),
    [("debug", 7), ("info", 6), ("warning", 4), ("error", 3), ("critical", 2)],
)
def test_levels(level: str, expected: int) -> None:
    assert prefix_level(None, level, "a\nb") == prefixed("a\nb", expected)
    assert prefixed("a\nb", expected) == f"<{expected}>a\n<{expected}>b"


def test_a_stream_that_was_inherited_is_not_the_journal(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w") as file:
        found = os.fstat(file.fileno())
        here = f"{found.st_dev}:{found.st_ino}"
        assert is_journal(file.fileno(), {"JOURNAL_STREAM": here})
        assert not is_journal(file.fileno(), {"JOURNAL_STREAM": f"{here}1"})
        assert not is_journal(file.fileno(), {})
