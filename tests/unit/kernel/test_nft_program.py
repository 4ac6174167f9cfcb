"""nft as a program that hangs, fails, or is not there."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from tula.dataplane.nft.transaction import AddTable
from tula.kernel.nftables import KernelNftables
from tula.model.errors import KernelError


@pytest.fixture
def nft(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a test writes the script that is run as nft."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path / "nft"


def write_script(path: Path, *lines: str) -> None:
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)


def is_running(pid: int) -> bool:
    """Whether there is such a process that is no zombie."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def test_one_that_hangs_is_killed_with_its_children(nft: Path, tmp_path: Path) -> None:
    started = tmp_path / "child"
    write_script(nft, "sleep 600 & echo $! >$0.tmp; mv $0.tmp " + str(started), "wait")
    with pytest.raises(KernelError, match=r"took longer than 5 s and was killed.*compared again"):
        KernelNftables(timeout=5).run((AddTable(),))
    child = int(started.read_text())
    deadline = time.monotonic() + 60
    while is_running(child) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(child)


def test_its_first_error_is_told(nft: Path) -> None:
    write_script(nft, "cat >/dev/null", "echo '/dev/stdin:1:1-2: Error: busy' >&2", "exit 1")
    with pytest.raises(KernelError, match="nft refused the change: busy"):
        KernelNftables().run((AddTable(),))


def test_one_that_crashes(nft: Path) -> None:
    write_script(nft, f"kill -{signal.SIGSEGV.value} $$")
    with pytest.raises(KernelError, match="ended by signal 11"):
        KernelNftables().run((AddTable(),))


def test_one_that_cannot_be_run(nft: Path) -> None:
    nft.write_text("#!/nonexistent\n")
    nft.chmod(0o755)
    with pytest.raises(KernelError, match=r"cannot run .*; install nftables"):
        KernelNftables().run((AddTable(),))
