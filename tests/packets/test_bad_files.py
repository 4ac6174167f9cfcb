"""Files that are no configurations and commands that are none: exit status 2, and nothing changed.

::

    lb  VIP 10.9.0.100, fd09::100 ════ lan ════ backend-1
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.in_process import InProcess, call_tula
from support.lab_configurations import service_of, write_config
from support.snapshots import unchanged
from tula.lab import Host, Lab, flat

pytestmark = pytest.mark.kernel


@pytest.fixture
def untouched(lab: Lab, tmp_path: Path) -> Iterator[Host]:
    """The balancer with a good configuration applied; nothing of it may change."""
    network = flat(lab, clients=0, backends=1)
    InProcess(network.lb).apply(write_config(tmp_path / "ok.yaml", {"web": service_of(network)}))
    with unchanged(network.lb):
        yield network.lb


def make_unreadable(path: Path, kind: str) -> str:
    """Puts something there that is no configuration, and returns what must be said of it."""
    if kind == "a directory":
        path.mkdir()
    elif kind == "a FIFO":
        os.mkfifo(path)
    elif kind == "a huge file":
        with path.open("wb") as file:
            file.write(b"services: {}\n")
            file.truncate(17 << 20)
        return r":1:1: larger than 16 MiB, too large for a configuration"
    elif kind == "a loop":
        path.symlink_to(path)
        return ": cannot be read: Too many levels of symbolic links"
    said = {"a directory": r"a directory without \*\.yaml", "a FIFO": "a pipe, not a file"}
    return f": {said.get(kind, 'no such file')}"


@pytest.mark.parametrize("kind", ["nothing", "a directory", "a FIFO", "a huge file", "a loop"])
def test_no_file_to_read(untouched: Host, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "document.yaml"
    words = make_unreadable(path, kind)
    done = call_tula(untouched, "apply", "-f", path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.match(rf"{re.escape(str(path))}{words}", done.stderr)
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("arguments", ["apply --frobnicate", "apply -f", "clear web"])
def test_wrong_usage(untouched: Host, arguments: str) -> None:
    done = call_tula(untouched, *arguments.split(), check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Error: " in done.stderr
