"""The client of the socket: no daemon, a daemon, and what is neither."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from support.fake_control import FakeControl
from support.served import served
from tula.cli import client
from tula.cli.client import Client, DaemonError, NoDaemonError, UnixSocket, find_daemon
from tula.engine import control


def test_the_socket_is_the_daemons() -> None:
    assert client.SOCKET == control.SOCKET


def test_no_socket(tmp_path: Path) -> None:
    assert find_daemon(tmp_path) is None
    assert find_daemon(tmp_path / "none") is None
    (tmp_path / "file").touch()
    assert find_daemon(tmp_path / "file") is None
    with pytest.raises(NoDaemonError):
        Client(UnixSocket(tmp_path / "tula.sock")).get("/status")


def test_a_path_on_which_nobody_could_listen(tmp_path: Path) -> None:
    assert find_daemon(tmp_path / ("x" * 120)) is None


def test_a_socket_that_a_daemon_left(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "tula.sock"))
    assert find_daemon(tmp_path) is None
    with pytest.raises(NoDaemonError):
        Client(UnixSocket(tmp_path / "tula.sock")).get("/status")


def test_a_daemon(tmp_path: Path) -> None:
    with served(FakeControl(), tmp_path):
        found = find_daemon(tmp_path)
        assert found is not None
        assert found.get("/status")["daemon"]["pid"] == 4711
        with pytest.raises(DaemonError) as error:
            found.get("/events", after="x", limit=None)
        assert error.value.status == 422
        assert error.value.wrong_input
    assert find_daemon(tmp_path) is None


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"", "ended before it answered"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "ended before it answered"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", "what answers there is not Tula's daemon"),
        (b"HTTP/1.1 404 No\r\n\r\n{}", "what answers there is not Tula's daemon"),
        (b'HTTP/1.1 500 No\r\n\r\n{"errors": []}', "what answers there is not Tula's daemon"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}", "ended before it answered"),
    ],
)
def test_what_answers_is_no_daemon(tmp_path: Path, answer: bytes, words: str) -> None:
    path = tmp_path / "tula.sock"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def once() -> None:
            with listening.accept()[0] as asked:
                asked.recv(65536)
                asked.sendall(answer)

        thread = threading.Thread(target=once)
        thread.start()
        with pytest.raises(DaemonError, match=words) as error:
            Client(UnixSocket(path)).get("/status")
        thread.join()
    assert not error.value.wrong_input


def test_an_answer_that_does_not_wait_for_the_body(tmp_path: Path) -> None:
    path = tmp_path / "tula.sock"
    body = b'{"errors": [{"message": "too large"}]}'
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(path))
        listening.listen()

        def once() -> None:
            with listening.accept()[0] as asked:
                asked.recv(1000)
                asked.sendall(b"HTTP/1.1 413 No\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

        thread = threading.Thread(target=once)
        thread.start()
        with pytest.raises(DaemonError, match="too large"):
            Client(UnixSocket(path)).apply(b"x" * (8 << 20))
        thread.join()
