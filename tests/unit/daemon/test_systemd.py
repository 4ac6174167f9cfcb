"""sd_notify: sockets with a path, abstract ones, and nobody who listens."""

from __future__ import annotations

import socket
import uuid
from pathlib import Path

import pytest

from tula.daemon.systemd import READY, notify, reloading


@pytest.mark.parametrize("abstract", [False, True])
def test_lines_arrive_as_one_datagram(tmp_path: Path, abstract: bool) -> None:
    name = f"@tula-{uuid.uuid4()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name.replace("@", "\0") if abstract else name)
        assert notify(READY, "STATUS=5 services", environment={"NOTIFY_SOCKET": name})
        assert manager.recv(4096) == b"READY=1\nSTATUS=5 services"


@pytest.mark.parametrize("where", [None, "", "relative", "/none/such", "@none-such", "/" * 200])
def test_nobody_listens(where: str | None) -> None:
    assert not notify(READY, environment={} if where is None else {"NOTIFY_SOCKET": where})


def test_a_manager_that_does_not_read_stops_nothing(tmp_path: Path) -> None:
    name = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(name)
        sent = [notify(READY, environment={"NOTIFY_SOCKET": name}) for _ in range(2000)]
    assert sent[0]
    assert not sent[-1]


def test_a_reload_has_its_time() -> None:
    first, second = reloading()
    assert first == "RELOADING=1"
    name, _, microseconds = second.partition("=")
    assert name == "MONOTONIC_USEC"
    assert int(microseconds) > 0
