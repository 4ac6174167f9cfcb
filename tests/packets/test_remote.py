"""Every command that asks the daemon prints the same on the machine and from another one.

::

    client-1: a token file       lb  api: 10.9.0.2:8420, [fd09::2]:8420      backend-1, -2
        │                         │                                             │
    ════╧═════════════════════════╧═════════════════════════════════════════════╧════  lan
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from support.cli_commands import REMOTE
from support.in_process import call_tula
from support.lab_configurations import service_of, write_config
from support.running import Running
from tula.lab import Lab, Network, flat, serve_tcp, wait_until
from tula.lab.process import Completed

pytestmark = pytest.mark.kernel

WEB = "web/backend-1"
FLOW = ["10.9.0.100:80", "--client", "10.9.0.201:40000"]
CHANGES = [
    ["apply", "-f", "WRONG"],
    ["apply", "-f", "OTHER", "--confirm", "10m"],
    ["confirm"],
    ["confirm"],
    ["apply", "-f", "LESS"],
    ["apply", "-f", "LESS", "--yes", "--json"],
    ["rollback"],
    ["rollback", "99"],
    ["reload"],
    ["drain", WEB],
    ["drain", WEB, "--deadline", "1h", "--wait"],
    ["undrain", WEB],
    ["disable", WEB],
    ["enable", WEB],
    ["weight", WEB, "7"],
    ["weight", WEB, "configured"],
    ["drain", "web/nobody"],
    ["persistence", "clear"],
    ["persistence", "clear", "10.9.0.201", "--service", "nobody"],
    ["persistence", "clear", "10.9.0.201", "--json"],
    ["standby"],
    ["active"],
]
"""Done on the machine first, and then from the other one, from the same beginning."""
READS = [
    ["version"],
    ["version", "--json"],
    ["plan"],
    ["plan", "-f", "OTHER", "--exit-code"],
    ["plan", "-f", "WRONG"],
    ["trace", *FLOW],
    ["trace", "[fd09::100]:80", "--client", "[fd09::201]:40000", "--json"],
    ["trace", *FLOW, "-f", "OTHER"],
    ["persistence", "list"],
    ["persistence", "list", "web", "--json"],
    ["configuration"],
    ["configuration", "--json"],
    ["history"],
    ["history", "--json"],
    ["diff"],
    ["diff", "1"],
    ["diff", "99"],
    ["status"],
    ["status", "web", "--json"],
    ["status", "--check"],
    ["status", "--problems"],
    ["status", "nothing"],
    ["notify", "test"],
    ["audit"],
    ["audit", "-n", "3", "--json"],
    ["events", "-n", "5"],
    ["events", "-n", "5", "--json"],
]
"""Done here and there, one after the other."""


@dataclass(frozen=True)
class Lb:
    """A balancer with its daemon, and a client that has a token for it."""

    network: Network
    daemon: Running
    files: dict[str, Path]
    token: Path
    url: str

    def here(self, words: list[str]) -> Completed:
        return call_tula(self.network.lb, *self._named(words), check=False)

    def there(self, words: list[str], token: Path | None = None) -> Completed:
        given = ["--server", self.url, "--token-file", token or self.token]
        return call_tula(self.network.client, *self._named(words), *given, check=False)

    def _named(self, words: list[str]) -> list[str | Path]:
        return [self.files.get(word, word) for word in words]


@pytest.fixture(scope="module")
def lb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lb]:
    folder = tmp_path_factory.mktemp("remote")
    with Lab() as lab:
        network = flat(lab, clients=1, backends=2)
        for backend in network.backends:
            serve_tcp(backend, [80])
        api = {"listen": ["10.9.0.2:8420", "[fd09::2]:8420"], "source": "api"}
        health = {"type": "tcp", "interval": "200ms", "timeout": "500ms"}
        web = service_of(network, health=health)
        first, second = web["backends"].items()
        less = {**web, "backends": dict([second])}
        heavy = {**web, "backends": {first[0]: {**first[1], "weight": 50}, second[0]: second[1]}}
        files = {
            name: write_config(folder / f"{name.lower()}.yaml", {"web": service}, api=api)
            for name, service in {"FIRST": web, "OTHER": heavy, "LESS": less}.items()
        }
        files["WRONG"] = folder / "wrong.yaml"
        files["WRONG"].write_text(files["FIRST"].read_text().replace("- 80", "- 80000"))
        with Running(network.lb, files["FIRST"]) as daemon:
            daemon.wait_for(backend_1="up", backend_2="up")
            made = Lb(network, daemon, files, folder / "ann.token", "https://10.9.0.2:8420")
            write_token(made, "ann", "configure", made.token)
            wait_until(lambda: made.there(["version"]).returncode == 0, 60, "the gateway")
            yield made


def write_token(lb: Lb, name: str, scope: str, path: Path) -> Path:
    """As a user does: what the command prints is the file."""
    path.touch(0o600)
    made = call_tula(lb.network.lb, "token", "create", name, "--scope", scope).stdout
    shown = wait_until(
        lambda: lb.daemon.status()["daemon"]["network"]["fingerprint"], 60, "the gateway"
    )
    path.write_text(f"{made}sha256:{shown}\n")
    return path


def shown(done: Completed) -> tuple[int, str, str]:
    return done.returncode, done.stdout, done.stderr


def without_who(done: Completed) -> tuple[int, str, str]:
    """Without the numbers of configurations, and who asked."""
    return (
        done.returncode,
        *(
            re.sub(r"configuration \d+|rollback \d+|1 to \d+", "CONFIGURATION", text)
            for text in (done.stdout, done.stderr)
        ),
    )


def without_counters(done: Completed) -> tuple[int, str, str]:
    """Probes are counted, too."""
    text = re.sub(r'("packets|"bytes|"entries|"time|"compared)": [\d.]+', r'\1": N', done.stdout)
    text = re.sub(r" +\d+(\.\d+)?k? +\d+(\.\d+)?k?$", " N N", text, flags=re.MULTILINE)
    return done.returncode, re.sub(r"(closed\d) \d+", r"\1 N", text), done.stderr


def test_every_command_is_here() -> None:
    called = {" ".join(words[:count]) for words in [*CHANGES, *READS] for count in (1, 2)}
    assert set(REMOTE) <= called


def test_what_changes_something_does_and_says_the_same(lb: Lb) -> None:
    done = []
    for way in (lb.here, lb.there):
        lb.here(["apply", "-f", "FIRST", "--yes"])
        done.append([without_who(way(words)) for words in CHANGES])
        done[-1].append(lb.daemon.status()["configuration"]["digest"])
    for words, here, there in zip([*CHANGES, []], *done, strict=True):
        assert there == here, words


@pytest.mark.parametrize("situation", ["all is well", "something is not"])
def test_what_shows_something_shows_the_same(lb: Lb, situation: str) -> None:
    lb.here(["apply", "-f", "FIRST", "--yes"])
    lb.daemon.wait_for(backend_1="up", backend_2="up")
    if situation != "all is well":
        lb.here(["drain", WEB])
        lb.network.backends[1].run(["ip", "link", "set", "eth0", "down"])
        lb.daemon.wait_for(backend_1="draining", backend_2="down")
    lb.daemon.wait_until_at_rest()
    try:
        for words in READS:
            one = without_counters if words[0] == "status" else shown
            assert one(lb.there(words)) == one(lb.here(words)), words
    finally:
        lb.network.backends[1].run(["ip", "link", "set", "eth0", "up"])
        lb.here(["undrain", WEB])


def test_what_a_token_may_not(lb: Lb, tmp_path: Path) -> None:
    reads = write_token(lb, "reader", "read", tmp_path / "reader.token")
    assert lb.there(["status"], reads).returncode == 0
    before = lb.daemon.status()
    for words in (["drain", WEB], ["apply", "-f", "OTHER"], ["rollback"]):
        found = lb.there(words, reads)
        assert (found.returncode, found.stdout) == (1, "")
        assert f"{lb.url}: " in found.stderr
        assert "scope read" in found.stderr
        assert f"(the token in {reads})" in found.stderr
    call_tula(lb.network.lb, "token", "revoke", "reader")
    found = lb.there(["status"], reads)
    assert (found.returncode, found.stdout) == (1, "")
    assert f"(the token in {reads})" in found.stderr
    after = lb.daemon.status()
    assert after["configuration"] == before["configuration"]


def test_by_ipv6_and_not_with_another_certificate(lb: Lb) -> None:
    words = ["version", "--server", "https://[fd09::2]:8420", "--token-file", lb.token]
    assert call_tula(lb.network.client, *words).returncode == 0
    other = call_tula(lb.network.client, *words, "--fingerprint", f"sha256:{'0' * 64}", check=False)
    assert other.returncode == 1
    assert "its certificate is another one than was pinned" in other.stderr


def test_two_who_write_know_of_each_other(lb: Lb) -> None:
    lb.here(["apply", "-f", "FIRST", "--yes"])
    runs = lb.daemon.status()["configuration"]["digest"]
    assert lb.there(["apply", "-f", "OTHER", "--replaces", runs[:12]]).returncode == 0
    late = lb.there(["apply", "-f", "FIRST", "--replaces", runs[:12]])
    assert (late.returncode, late.stdout) == (1, "")
    assert "another configuration runs" in late.stderr
    assert lb.there(["apply", "-f", "FIRST"]).returncode == 0


def test_events_are_followed(lb: Lb, tmp_path: Path) -> None:
    """Over TLS, across a restart of the daemon."""
    host, output = lb.network.client, tmp_path / "followed"
    follow = [*("--server", lb.url, "--token-file", lb.token), "events", "--follow", "--json"]
    with output.open("w") as opened:
        process = host.popen(
            [sys.executable, "-m", "tula", *follow],
            stdout=opened.fileno(),
            stderr=opened.fileno(),
            env=host.environment(),
        )

    def seen(kind: str, number: int = 1) -> bool:
        return output.read_text().count(f'"{kind}"') >= number

    try:
        wait_until(lambda: seen("daemon-started"), 60, "what was before")
        before = output.read_text().count('"weight-set"')
        lb.here(["weight", WEB, "9"])
        wait_until(lambda: seen("weight-set", before + 1), 60, "what happens")
        lb.daemon.stop()
        wait_until(lambda: "waiting for it" in output.read_text(), 60, "its end")
        lb.daemon.start()
        wait_until(lambda: seen("daemon-started", 2), 60, "its new start")
        lb.here(["weight", WEB, "configured"])
        wait_until(lambda: seen("weight-set", before + 2), 60, "what happens then")
    finally:
        process.terminate()
        process.wait(60)


def test_a_backend_joins_by_what_its_balancer_knows(lb: Lb, tmp_path: Path) -> None:
    """As by the file, and from then on without the balancer."""
    lb.here(["apply", "-f", "FIRST", "--yes"])
    backend = lb.network.backends[0]
    token = write_token(lb, "its-own", "backend:backend-1", tmp_path / "backend-1.token")
    given = ["--server", lb.url, "--token-file", token]

    def join(*words: str | Path) -> Completed:
        return call_tula(backend, "backend", "join", "--no-persist", *words, check=False)

    by_file, by_server = join("-f", lb.files["FIRST"], "--dry-run"), join(*given, "--dry-run")
    assert shown(by_server) == shown(by_file)
    other = join(*given, "--as", "backend-2")
    assert (other.returncode, other.stdout) == (1, "")
    assert "a token for backend backend-1 sees that backend and no other" in other.stderr
    reader = write_token(lb, "sees", "read", tmp_path / "sees.token")
    unnamed = join("--server", lb.url, "--token-file", reader)
    assert unnamed.stderr == (
        "tula: this token has scope read; say with --as which backend this is\n"
    )
    silent = join("--server", "https://10.9.0.2:9", "--token-file", token)
    assert (silent.returncode, silent.stdout) == (1, "")
    assert call_tula(backend, "backend", "status").stdout.startswith("This machine has not joined")

    assert join(*given).stdout.endswith("This machine is the backend backend-1.\n")
    assert join().stdout.startswith("Nothing changed.\n"), "from its own record"
    assert call_tula(backend, "backend", "status", "--exit-code").returncode == 0
    call_tula(backend, "backend", "leave")
