"""A large configuration's status, metrics, traces and plans are answered by processes of their own.

::

    client-1        lb ── reader processes        backend-1 … 3
        │            │                                │
    ════╧════════════╧════════════════════════════════╧════  lan

Of the 210 backends only three are there; nothing checks the others.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from support.in_process import call_tula
from support.lab_documents import backends_of, service_of, write_document
from support.running import Running
from tula.lab import Lab, flat, wait_until

pytestmark = pytest.mark.kernel


def children(pid: int) -> set[int]:
    """The processes that a process started, by any of its threads."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return {int(child) for task in tasks for child in (task / "children").read_text().split()}


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_readers_beside_the_daemon(lab: Lab, tmp_path: Path) -> None:
    network = flat(lab)
    backends: dict[str, Any] = backends_of(*network.backends)
    subnet = next(a for a in network.lb.addresses("eth0") if ":" not in a).rpartition(".")[0]
    free = [f"{subnet}.{number}" for number in range(40, 250)]
    for address in free[: 210 - len(backends) + 1]:
        if address != network.vip4:
            backends[f"absent-{address}".replace(".", "-")] = {"address": address, "weight": 0}
    service = service_of(network, vip=[network.vip4], backends=backends)
    document = write_document(tmp_path / "tula.yaml", {"web": service})
    with Running(network.lb, document) as daemon:
        assert len(daemon.backends()) == 210
        (reader,) = children(daemon.pid)
        assert b"tula.daemon.reader_process" in Path(f"/proc/{reader}/cmdline").read_bytes()
        assert daemon.figure("tula_backend_state") == 210.0
        trace = f"{network.vip4}:80", "--client", "192.0.2.1:1234"
        assert call_tula(network.lb, "trace", *trace).stdout.startswith("web/backend-")
        assert call_tula(network.lb, "plan").stdout == "nothing to change\n"
        assert children(daemon.pid) == {reader}, "one for plan has ended with its answer"
        call_tula(network.lb, "disable", "web/backend-2")
        assert daemon.states()["web/backend-2"] == "disabled", "the next status knows"

        os.kill(reader, signal.SIGKILL)
        assert daemon.states()["web/backend-1"] == "unknown", "another one answers"
        (again,) = children(daemon.pid)
        assert again != reader

        daemon.kill()
        wait_until(lambda: not alive(again), 60, "it ends with the daemon")
        daemon.start()
        (last,) = children(daemon.pid)
        assert daemon.stop() == 0
        assert not alive(last)
        daemon.start()
