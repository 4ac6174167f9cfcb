"""Recipes of docs/recipes.md for protocols that need more than one connection to one backend, or
less, and for a backup: as they stand there, with Debian's packages unmodified where there are some.

The network is that of test_recipes.py; the client has several addresses, which are as many clients.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from support.debian_servers import FREERADIUS, RSYSLOG, VSFTPD
from support.recipes import Cooked, read_recipe
from support.running import Running
from tula.lab import Lab, serve_tcp, serve_udp, tcp_ask, udp_ask, wait_until
from tula.lab.process import Completed

pytestmark = pytest.mark.kernel

CLIENTS = range(210, 216)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Servers that give up root still find what is in it."""
    for parent in (tmp_path, tmp_path.parent):
        parent.chmod(0o755)
    return tmp_path


def add_clients(cooked: Cooked) -> None:
    """More addresses for the client."""
    for number in CLIENTS:
        for address in (f"10.0.0.{number}/24", f"2001:db8::{number}/64"):
            cooked.client.host.run(["ip", "address", "add", address, "dev", "eth0", "nodad"])


def clients_of(vip: str) -> list[str]:
    """Their addresses, of the VIP's family."""
    return [f"2001:db8::{n}" if ":" in vip else f"10.0.0.{n}" for n in CLIENTS]


def test_ftp_sessions_stay_with_their_server(lab: Lab, folder: Path) -> None:
    recipe = read_recipe("FTP")
    cooked = Cooked(lab, folder, recipe)
    add_clients(cooked)
    cooked.join()
    cooked.configure(recipe.scripts[0])
    for backend in cooked.backends:
        VSFTPD.set_up(backend)
        (backend.tree / "srv/ftp/who").write_text(backend.host.name)
        VSFTPD.start(backend, folder)

    def fetch(vip: str, client: str, *how: str, check: bool = True) -> Completed:
        url = f"ftp://{f'[{vip}]' if ':' in vip else vip}"
        curl = ["curl", "-sS", "--max-time", "20", "--interface", client, *how]
        return cooked.client.host.run([*curl, f"{url}/who", f"{url}/who"], check=check)

    with cooked.serve() as running:
        cooked.all_up(running)

        def sessions(vip: str) -> None:
            found = []
            for client in clients_of(vip):
                # Two files each: two data connections beside the control connection.
                passive = fetch(vip, client).stdout
                assert passive in ("ftp-1" * 2, "ftp-2" * 2)
                active = fetch(vip, client, "--ftp-port", "-").stdout
                assert active == passive, "the server connects from the VIP"
                found.append(passive)
            assert len(set(found)) == 2

        cooked.answers_of(sessions)
        # That it is persistence which does this: without it, data connections go astray.
        cooked.path.write_text(recipe.configuration.replace("    persistence: 15m\n", ""))
        cooked.lb.tula("apply", "-f", cooked.path)
        vip = cooked.vips[0]
        done = [fetch(vip, client, check=False).returncode for client in clients_of(vip)]
        assert any(done)


def test_sip_and_its_media_go_to_one_server(lab: Lab, folder: Path) -> None:
    recipe = read_recipe("SIP")
    cooked = Cooked(lab, folder, recipe)
    add_clients(cooked)
    cooked.join()
    media = (10000, 12345, 20000)
    for backend in cooked.backends:
        serve_udp(backend.host, (5060, *media))
        serve_tcp(backend.host, (5060, 5061))
    client = cooked.client.host
    with cooked.serve() as running:
        cooked.all_up(running)

        def calls(vip: str) -> None:
            found = []
            for source in clients_of(vip):
                register = b"REGISTER sip:example.org SIP/2.0\r\n\r\n"
                first = udp_ask(client, vip, 5060, source=source, payload=register)
                others = {udp_ask(client, vip, port, source=source) for port in media}
                others |= {tcp_ask(client, vip, port, source=source) for port in (5060, 5061)}
                assert others == {first}
                found.append(first)
            assert len(set(found)) == 2

        cooked.answers_of(calls)


def test_radius_stays_with_its_server(lab: Lab, folder: Path) -> None:
    recipe = read_recipe("RADIUS")
    cooked = Cooked(lab, folder, recipe)
    add_clients(cooked)
    cooked.join()
    for backend in cooked.backends:
        FREERADIUS.set_up(backend)
    cooked.configure(recipe.scripts[0])
    for backend in cooked.backends:
        # Beside the recipe: the answer says who gives it.
        users = backend.tree / "etc/freeradius/3.0/mods-config/files/authorize"
        name = backend.host.name
        line = 'bob Cleartext-Password := "hello"'
        users.write_text(users.read_text().replace(line, f'{line}\n\tReply-Message = "{name}"', 1))
        FREERADIUS.start(backend, folder)
    with cooked.serve() as running:
        cooked.all_up(running)

        def logins(vip: str) -> None:
            server = f"[{vip}]" if ":" in vip else vip
            found = []
            for source in clients_of(vip):
                which = "Packet-Src-IPv6-Address" if ":" in vip else "Packet-Src-IP-Address"
                from_here = f"{which} = {source}\n"
                for kind in ("auth", "auth"):
                    asked = f'User-Name = "bob"\nUser-Password = "hello"\n{from_here}'
                    done = cooked.client.run(
                        "radclient", "-x", "-r", "20", "-t", "1", server, kind, "testing123",
                        input=asked,
                    )  # fmt: skip
                    assert "Received Access-Accept" in done.stdout, done.stdout
                    (who,) = (b.host.name for b in cooked.backends if b.host.name in done.stdout)
                    found.append((source, who))
            # One backend each, though each request comes from another port; and both are used.
            assert len(set(found)) == len(CLIENTS)
            assert len({who for _, who in found}) == 2

        wait_until(lambda: _accept(cooked), 60, "FreeRADIUS")
        cooked.answers_of(logins)


def _accept(cooked: Cooked) -> bool:
    """Whether both servers have started, asked at their own addresses."""
    asked = 'User-Name = "bob"\nUser-Password = "hello"\n'
    ask = ("radclient", "-r", "1", "-t", "1")
    return all(
        cooked.client.run(
            *ask, backend.host.addresses("eth0")[0], "auth", "testing123", input=asked, check=False
        ).returncode
        == 0
        for backend in cooked.backends
    )


def test_one_sender_of_syslog_is_spread(lab: Lab, folder: Path) -> None:
    recipe = read_recipe("Syslog")
    cooked = Cooked(lab, folder, recipe)
    cooked.join()
    for backend in cooked.backends:
        RSYSLOG.set_up(backend)
    cooked.configure(recipe.scripts[0])
    for backend in cooked.backends:
        RSYSLOG.start(backend, folder)
    logs = [backend.tree / "var/log/network.log" for backend in cooked.backends]

    def lines(word: str) -> list[int]:
        texts = [log.read_text() if log.exists() else "" for log in logs]
        return [text.count(f"{word} ") for text in texts]

    client = cooked.client.host

    def send(vip: str, word: str, count: int) -> None:
        """All from one socket, as a sender does."""
        family = socket.AF_INET6 if ":" in vip else socket.AF_INET
        with client.socket(family, socket.SOCK_DGRAM) as sender:
            for number in range(count):
                line = f"<14>Nov 29 12:00:00 switch app: {word} {number}"
                sender.sendto(line.encode(), (vip, 514))

    with cooked.serve() as running:
        cooked.all_up(running)
        for vip in cooked.vips:
            word = f"v{'6' if ':' in vip else '4'}"
            send(vip, word, 40)
            wait_until(lambda word=word: sum(lines(word)) == 40, 30, "all lines")  # type: ignore[misc]
            assert lines(word) == [20, 20]
        cooked.lb.tula("drain", "syslog/log-1", "--wait")
        for vip in cooked.vips:
            send(vip, "drained", 10)
        wait_until(lambda: sum(lines("drained")) == 20, 30, "all lines")
        assert lines("drained") == [0, 20]


def test_quic_goes_on_behind_a_nat_that_changes_its_port(lab: Lab, folder: Path) -> None:
    recipe = read_recipe("QUIC")
    cooked = Cooked(lab, folder, recipe)
    add_clients(cooked)
    for number in range(20, 26):  # networks of other clients
        for address in (f"10.{number}.0.9/24", f"2001:db8:{number}::9/64"):
            cooked.client.host.run(["ip", "address", "add", address, "dev", "eth0", "nodad"])
    cooked.join()
    for backend in cooked.backends:
        for number in range(20, 26):
            for prefix, hop in (
                (f"10.{number}.0.0/24", "10.0.0.201"),
                (f"2001:db8:{number}::/64", "2001:db8::201"),
            ):
                backend.host.run(["ip", "route", "add", prefix, "via", hop])
        serve_udp(backend.host, (443,))
        serve_tcp(backend.host, (443,))
    client = cooked.client.host
    initial = bytes((0xC0, 0, 0, 0, 1, 8)) + b"\x11" * 1194
    short = bytes((0x40,)) + b"\x22" * 40
    with cooked.serve() as running:
        cooked.all_up(running)

        def connections(vip: str) -> None:
            found = []
            for number in range(20, 26):
                source = f"2001:db8:{number}::9" if ":" in vip else f"10.{number}.0.9"
                began = udp_ask(client, vip, 443, source_port=40000, source=source, payload=initial)
                later = {
                    udp_ask(client, vip, 443, source_port=port, source=source, payload=short)
                    for port in range(40001, 40009)
                }
                later.add(tcp_ask(client, vip, 443, source=source))
                assert later == {began}
                found.append(began)
            assert len(set(found)) == 2

        for vip in cooked.vips:
            connections(vip)


def test_a_sorry_server_serves_when_too_few_caches_can(lab: Lab, folder: Path) -> None:
    recipe = read_recipe("A sorry server")
    cooked = Cooked(lab, folder, recipe)
    *caches, sorry = (backend.host for backend in cooked.backends)
    # The other network is on the same wire here.
    cooked.lb.run(["ip", "route", "add", "10.7.0.0/24", "dev", "eth0"])
    sorry.run(["ip", "route", "add", "10.0.0.0/24", "dev", "eth0"])
    cooked.join()
    servers = [serve_tcp(host, (80,)) for host in (*caches, sorry)]
    client = cooked.client.host

    def answering(running: Running, **states: str) -> set[str]:
        running.wait_for(within=60, **states)
        return {tcp_ask(client, cooked.vips[0], 80) for _ in range(24)}

    with cooked.serve() as running:
        up = {"cache_1": "up", "cache_2": "up", "cache_3": "up", "sorry": "up"}
        assert answering(running, **up) == {host.name for host in caches}
        servers[0].close()
        assert answering(running, **up | {"cache_1": "down"}) == {"cache-2", "cache-3"}
        servers[1].close()
        assert answering(running, **up | {"cache_1": "down", "cache_2": "down"}) == {"sorry"}
        serve_tcp(caches[0], (80,))
        assert answering(running, **up | {"cache_2": "down"}) == {"cache-1", "cache-3"}
        assert {"backups-started", "backups-ended"} <= {e["kind"] for e in running.events()}
