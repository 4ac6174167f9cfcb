"""What BIRD says is read as it is meant; ``bird_2_0_12.txt`` is what one said in a lab."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from tula.model.bgp import BgpSessionState
from tula.model.errors import KernelError
from tula.vip.bird_control import BirdControl, parse_sessions

SAID = Path(__file__).parent / "bird_2_0_12.txt"


@pytest.fixture
def bird(tmp_path: Path) -> Iterator[Path]:
    """A socket that says to anybody what BIRD did."""
    path = tmp_path / "ctl"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.sendall(SAID.read_bytes())
                while client.recv(1000):
                    pass

        thread = threading.Thread(target=serve)
        thread.start()
        yield path
        thread.join()


def test_sessions_of_every_kind(bird: Path) -> None:
    found = {str(session.router): session for session in BirdControl(bird).sessions()}
    assert set(found) == {"10.9.0.1", "fd09::1", "10.9.0.9", "10.9.9.9"}
    near = found["10.9.0.1"]
    assert near.established
    assert near.since is not None
    assert (near.routes, near.versions, near.bfd, near.error) == (1, (4,), "Up", "")
    assert (found["fd09::1"].versions, found["fd09::1"].routes) == ((6,), 1)
    assert not found["10.9.0.9"].established
    assert (found["10.9.0.9"].state, found["10.9.0.9"].bfd) == ("Active", "Down")
    assert found["10.9.9.9"].error == "Socket: Network is unreachable"


def test_a_session_without_channels_and_without_bfd() -> None:
    said = (
        "router_10_0_0_1 BGP        ---        down   2026-11-28 21:33:27.839  \n"
        "  BGP state:          Down\n"
        "    Neighbor address: 10.0.0.1\n"
    )
    (found,) = parse_sessions(said, "There is no BFD protocol running\n")
    assert found == BgpSessionState(ip_address("10.0.0.1"), "Down", found.since)


def test_nonsense_is_no_session() -> None:
    assert parse_sessions("x BGP y up soon\n  Neighbor address: z\n", "a b Up\n") == []


def test_nobody_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="cannot ask BIRD"):
        BirdControl(tmp_path / "ctl").sessions()
