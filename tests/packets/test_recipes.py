"""The recipes of docs/recipes.md, as they stand there, with Debian's packages unmodified.

::

    client        lb1  VIP 10.0.0.100, 2001:db8::100      two backends, joined
       │           │                                           │
    ═══╧═══════════╧═══════════════════════════════════════════╧════  10.0.0.0/24, 2001:db8::/64

Each answer goes straight from the backend to the client, and the configuration's health checks,
which go through the VIP, pass at both backends.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

import dns.flags
import dns.message
import dns.query
import dns.rdatatype
import pytest

from support.debian import Debian
from support.debian_servers import BIND, KNOT, NGINX, UNBOUND, Postgres, Program
from support.recipes import Cooked, read_recipe
from tula.lab import Lab, wait_until

pytestmark = pytest.mark.kernel

MIB = 1 << 20
SIZE = 100 * MIB
DATAGRAM = 1232


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Servers that give up root still find what is in it."""
    for parent in (tmp_path, tmp_path.parent):
        parent.chmod(0o755)
    return tmp_path


def test_nginx_serves_video_and_downloads(lab: Lab, folder: Path) -> None:
    recipe = read_recipe("Video and downloads")
    cooked = Cooked(lab, folder, recipe)
    cooked.join()
    film = folder / "film.mp4"
    block = hashlib.sha512(b"film").digest() * (MIB // 64)
    with film.open("wb") as output:
        for number in range(SIZE // MIB):
            output.write(number.to_bytes(8, "big") + block[8:])
    for backend in cooked.backends:
        NGINX.set_up(backend)
        (backend.tree / "var/www/html/film.mp4").hardlink_to(film)
    cooked.configure(recipe.scripts[0])
    for backend in cooked.backends:
        NGINX.start(backend, folder)
    with cooked.serve() as running:
        cooked.all_up(running)

        def download(vip: str) -> None:
            url = f"http://{f'[{vip}]' if ':' in vip else vip}/film.mp4"
            got = folder / "got"
            curl = ["curl", "-fsS", "-o", got]
            cooked.client.host.run([*curl, url])
            assert got.stat().st_size == SIZE
            with got.open("rb") as one, film.open("rb") as other:
                digests = [hashlib.file_digest(file, "sha256").digest() for file in (one, other)]
            assert digests[0] == digests[1]
            first = 70 * MIB + 3
            done = cooked.client.host.run(
                [*curl, "-r", f"{first}-{first + 999_999}", "-w", "%{http_code}", url]
            )
            assert done.stdout == "206"
            with film.open("rb") as whole:
                whole.seek(first)
                assert got.read_bytes() == whole.read(1_000_000)

        before = cooked.lb.counters()
        cooked.answers_of(download)
        passed = cooked.lb.counters() - before
        assert passed.rx_bytes + passed.tx_bytes < SIZE // 10, "of two downloads of SIZE"


def test_postgresql_sends_large_results(lab: Lab, folder: Path) -> None:
    recipe = read_recipe("Database results")
    cooked = Cooked(lab, folder, recipe)
    cooked.join()
    postgres = Postgres(cooked.backends, folder)
    for backend in cooked.backends:
        (backend.tree / "etc/hosts").write_text("127.0.0.1 localhost\n::1 localhost\n")
    postgres.start()
    wait_until(postgres.answers, 30, "PostgreSQL")
    cooked.configure(recipe.scripts[0])
    for backend in cooked.backends:
        postgres.ask(backend, "CREATE ROLE reader LOGIN PASSWORD 'secret'")
    postgres.stop()
    postgres.start()
    wait_until(postgres.answers, 30, "PostgreSQL again")
    with cooked.serve() as running:
        cooked.all_up(running)
        rows, width = 20_000, 1_000

        def query(vip: str) -> None:
            where = f"host={vip} user=reader dbname=postgres password=secret"
            sql = f"SELECT repeat('x', {width}) FROM generate_series(1, {rows})"
            done = cooked.client.run("psql", where, "-AtXqc", sql)
            assert len(done.stdout) == rows * (width + 1)
            shown = "SELECT inet_server_addr(), inet_client_addr(), current_setting('{}')"
            shown = shown.format("tcp_keepalives_idle")
            told = cooked.client.run("psql", where, "-AtXqc", shown).stdout.strip().split("|")
            assert told[0] == vip
            assert told[1] in cooked.client.host.addresses("eth0")
            assert told[2] == "600", "the recipe's"

        cooked.answers_of(query)


@pytest.mark.parametrize(
    ("number", "server"),
    [(0, BIND), (1, KNOT), (2, UNBOUND)],
    ids=["bind", "knot", "unbound"],
)
def test_a_dns_server_answers_from_the_vip(
    lab: Lab, folder: Path, number: int, server: Program
) -> None:
    recipe = read_recipe("DNS")
    cooked = Cooked(lab, folder, recipe)
    cooked.join()
    for backend in cooked.backends:
        server.set_up(backend)
    cooked.configure(recipe.scripts[number])
    for backend in cooked.backends:
        _add_large(backend, server)
        server.start(backend, folder)
    with cooked.serve() as running:
        cooked.all_up(running)

        def ask(vip: str) -> None:
            with cooked.client.host.enter():
                small = dns.message.make_query("www.example.org.", dns.rdatatype.A, use_edns=True)
                # udp() takes an answer from the address that was asked and from no other.
                for way in (dns.query.udp, dns.query.tcp):
                    found = way(small, vip, timeout=5)
                    assert [item.address for item in found.answer[0]] == ["192.0.2.80"]
                large = dns.message.make_query(
                    "large.example.org.", dns.rdatatype.TXT, use_edns=True, payload=DATAGRAM
                )
                short = dns.query.udp(large, vip, timeout=5)
                assert short.flags & dns.flags.TC
                whole, by_tcp = dns.query.udp_with_fallback(large, vip, timeout=5)
                assert by_tcp
                assert len(whole.to_wire()) > DATAGRAM

        cooked.answers_of(ask)


def _add_large(backend: Debian, server: Program) -> None:
    """A name beside the recipe's, with an answer that does not fit into a datagram."""
    texts = [f"{n:02}{'x' * 200}" for n in range(10)]
    if server is UNBOUND:
        file = "etc/unbound/unbound.conf.d/vip.conf"
        line = "    local-data: 'large.example.org. 300 TXT \"{}\"'"
    else:
        file = "etc/bind/db.example.org" if server is BIND else "var/lib/knot/example.org.zone"
        line = 'large 300 TXT "{}"'
    with (backend.tree / file).open("a") as output:
        output.writelines(f"{line.format(text)}\n" for text in texts)
