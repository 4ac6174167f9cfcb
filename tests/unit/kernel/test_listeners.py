"""SSH's ports, from a /proc made of files."""

from __future__ import annotations

from pathlib import Path

import pytest

from tula.kernel.listeners import ssh_ports

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid"
LISTEN, ESTABLISHED = "0A", "01"
NOWHERE = Path("/nonexistent")


def tcp_line(port: int, state: str, inode: int, address: str = "00000000") -> str:
    """A line of /proc/net/tcp, as proc_pid_net(5) describes it."""
    rest = f"00000000:00000000 00:00000000 00000000     0        0 {inode} 1 0000 100 0 0 10 0"
    return f"   0: {address}:{port:04X} 00000000:0000 {state} {rest}"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    net = tmp_path / "self" / "net"
    net.mkdir(parents=True)
    (net / "tcp").write_text(
        "\n".join(
            [
                HEAD,
                tcp_line(2222, LISTEN, 501),
                tcp_line(80, LISTEN, 502),
                tcp_line(40000, ESTABLISHED, 503),
            ]
        )
    )
    (net / "tcp6").write_text("\n".join([HEAD, tcp_line(2022, LISTEN, 504, "0" * 32)]))
    for name in ("version", "sys", "1"):  # process 1 of another user: nothing in it is readable
        (tmp_path / name).mkdir()
    return tmp_path


def process(proc: Path, number: int, name: str, *inodes: int) -> None:
    descriptors = proc / str(number) / "fd"
    descriptors.mkdir(parents=True)
    (proc / str(number) / "comm").write_text(f"{name}\n")
    for descriptor, inode in enumerate(inodes):
        (descriptors / str(descriptor)).symlink_to(f"socket:[{inode}]")
    (descriptors / "9").symlink_to("/dev/null")


def test_the_usual_port_when_nothing_listens(tmp_path: Path) -> None:
    assert ssh_ports({}, tmp_path, NOWHERE) == {22}


def test_the_ports_of_a_listening_sshd(proc: Path) -> None:
    process(proc, 100, "nginx", 502)
    process(proc, 200, "sshd", 501, 504)
    process(proc, 300, "sshd", 503)  # a session: its connection is no listener
    assert ssh_ports({}, proc, NOWHERE) == {22, 2222, 2022}


def test_another_servers_ports_are_not_ssh(proc: Path) -> None:
    process(proc, 100, "nginx", 501, 502, 504)
    assert ssh_ports({}, proc, NOWHERE) == {22}


@pytest.mark.parametrize(
    ("connection", "ports"),
    [
        ("192.0.2.1 50000 192.0.2.2 2200", {22, 2200}),
        ("2001:db8::1 50000 2001:db8::2 22", {22}),
        ("", {22}),
        ("192.0.2.1 50000 192.0.2.2", {22}),
        ("192.0.2.1 50000 192.0.2.2 ssh", {22}),
    ],
)
def test_the_port_of_this_session(tmp_path: Path, connection: str, ports: set[int]) -> None:
    assert ssh_ports({"SSH_CONNECTION": connection}, tmp_path, NOWHERE) == ports


def test_the_real_proc_is_readable() -> None:
    assert 22 in ssh_ports()


def test_the_ports_that_the_configuration_names(tmp_path: Path) -> None:
    (tmp_path / "sshd_config").write_text(
        "# Port 1\nPort 2200\nport=2201\nListenAddress 10.0.0.1:2202\nListenAddress [::1]:2203\n"
        "ListenAddress ::1\nListenAddress 10.0.0.1\nPermitRootLogin no\n"
    )
    more = tmp_path / "sshd_config.d"
    more.mkdir()
    (more / "a.conf").write_text("Port 2204\n")
    assert ssh_ports({}, tmp_path, tmp_path) == {22, 2200, 2201, 2202, 2203, 2204}
