"""The command line in this process, with a configuration and a state directory of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from support.fake_control import FakeControl
from support.served import served
from tula.cli.main import app

CONFIGURATION = """\
interfaces: [eth0]
services:
  web:
    vip: [10.0.0.100, "2001:db8::100"]
    ports: [80]
    forwarding: l2
    backends:
      one: {address: [10.0.0.11, "2001:db8::11"]}
"""


Call = Callable[..., Result]


@pytest.fixture
def tula(tmp_path: Path) -> Call:
    """Calls tula with a state directory of the test's own."""
    (tmp_path / "tula.yaml").write_text(CONFIGURATION)

    def call(*arguments: str, given: str = "") -> Result:
        env = {"TULA_STATE_DIR": str(tmp_path / "state"), "TULA_RUN_DIR": str(tmp_path / "run")}
        return CliRunner().invoke(
            app, [a.replace("DOC", str(tmp_path)) for a in arguments], given, env
        )

    return call


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[FakeControl]:
    """What the daemon of that run directory is asked; its file is the configuration."""
    control = FakeControl()
    with served(control, tmp_path / "run"):
        yield control
