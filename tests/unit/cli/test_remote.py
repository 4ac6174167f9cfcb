"""The same commands, asked of a daemon on another machine."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from copy import deepcopy
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from support.certificates import Certificate, make_certificate
from support.cli_commands import DECIDED, HERE, REMOTE
from support.fake_control import NOW, FakeControl, make_events
from support.served import served
from support.tls_front import TOKEN, Front, problem, tls_front
from tula.api.routes.audit import MOST
from tula.cli.audit import _MOST_AFAR
from tula.cli.main import app
from tula.cli.remote import where_of
from tula.engine.audit import AuditFile, AuditLog, new_entry
from tula.engine.audit import Result as Outcome
from tula.engine.callers import Caller, Scope
from tula.engine.history import Entry
from unit.cli.conftest import CONFIGURATION

LB1 = ["--server", "https://lb1", "--token-file", "DOC/lb1.token"]
NEEDS = {
    "check": ["-f", "F"],
    "run": ["-f", "F"],
    "context use": ["lb1"],
    "lab exec": ["lb", "true"],
    "backend instructions": ["-f", "F", "b1"],
    "peer add": ["lb2"],
    "peer copy": ["lb2"],
    "peer remove": ["lb2"],
    "token create": ["ci", "--scope", "read"],
    "token revoke": ["ci"],
}
"""What a command cannot be called without."""
CALLS = {
    "active": [["active"]],
    "apply": [["apply", "-f", "DOC/tula.yaml"], ["apply"], ["apply", "--confirm", "60s", "--json"]],
    "audit": [["audit"], ["audit", "-n", "1", "--json"]],
    "configuration": [["configuration"], ["configuration", "--json"]],
    "confirm": [["confirm"]],
    "diff": [["diff"], ["diff", "2"]],
    "disable": [["disable", "web/b1"], ["disable", "web/none"]],
    "drain": [
        ["drain", "web/b1"],
        ["drain", "web/b1", "--release"],
        ["drain", "web/b1", "--deadline", "10m", "--wait"],
    ],
    "enable": [["enable", "web/b1"]],
    "events": [["events"], ["events", "--json", "-n", "2"]],
    "history": [["history"], ["history", "--json"]],
    "persistence clear": [
        ["persistence", "clear", "192.0.2.7"],
        ["persistence", "clear", "192.0.2.7", "--service", "web", "--json"],
        ["persistence", "clear", "--yes"],
        ["persistence", "clear"],
        ["persistence", "clear", "192.0.2.0/24"],
    ],
    "persistence list": [
        ["persistence", "list"],
        ["persistence", "list", "web", "--json", "-n", "1"],
        ["persistence", "list", "-n", "1"],
        ["persistence", "list", "--client", "192.0.2.7"],
        ["persistence", "list", "none"],
    ],
    "notify test": [["notify", "test"], ["notify", "test", "--json"]],
    "plan": [["plan"], ["plan", "-f", "DOC/tula.yaml", "--exit-code"], ["plan", "-f", "DOC/no"]],
    "reload": [["reload", "--yes"]],
    "rollback": [["rollback"], ["rollback", "1"]],
    "standby": [["standby", "--no-wait"]],
    "status": [["status"], ["status", "web", "--json"], ["status", "--check"], ["status", "none"]],
    "trace": [
        ["trace", "10.0.0.100:80", "--client", "10.0.0.50:40000"],
        ["trace", "10.0.0.100:80", "--client", "10.0.0.50:40000", "--json", "--protocol", "udp"],
        ["trace", "10.0.0.100:80", "--client", "10.0.0.50:1", "-f", "DOC/tula.yaml"],
    ],
    "undrain": [["undrain", "web/b1"]],
    "version": [["version"], ["version", "--json"]],
    "weight": [["weight", "web/b1", "7"], ["weight", "web/b1", "x"]],
}
"""Every command that asks the daemon, as often as it takes to see it whole."""


class Remote:
    """A machine that has nothing but a token file, and a daemon behind TLS elsewhere."""

    def __init__(self, folder: Path, front: Front, certificate: Certificate) -> None:
        self.folder, self.front, self.certificate = folder, front, certificate
        self.token = folder / "lb1.token"
        self.write(TOKEN, certificate.fingerprint)

    def write(self, *lines: str, mode: int = 0o600) -> None:
        self.token.touch(mode=0o600)
        self.token.write_text("".join(f"{line}\n" for line in lines))
        self.token.chmod(mode)

    def __call__(self, *words: str, **environment: str) -> Result:
        env = {
            "XDG_CONFIG_HOME": str(self.folder / "config"),
            "TULA_STATE_DIR": str(self.folder / "elsewhere"),
            "TULA_RUN_DIR": str(self.folder / "elsewhere"),
            **environment,
        }
        return CliRunner().invoke(app, [w.replace("DOC", str(self.folder)) for w in words], env=env)

    def ask(self, *words: str) -> Result:
        """With the options that name the server."""
        return self("--server", self.front.url, "--token-file", str(self.token), *words)


@pytest.fixture
def daemon() -> FakeControl:
    change = Entry(1, NOW, "d1", "root", "apply", ("+ service web",))
    control = FakeControl(accepted=(change, replace(change, number=2, by="ann")))
    control.happened = make_events(3)
    control.held = {ip_address("192.0.2.7"): "10.0.0.11", ip_address("192.0.2.8"): "10.9.9.9"}
    control.connections = {("web", "b1"): 0, ("web", "b2"): 3}
    return control


@pytest.fixture
def certificate(tmp_path: Path) -> Certificate:
    return make_certificate(tmp_path, "127.0.0.1")


@pytest.fixture
def front(tmp_path: Path, daemon: FakeControl, certificate: Certificate) -> Iterator[Front]:
    state = tmp_path / "state"
    state.mkdir()
    caller = Caller("ci", Scope.OPERATE, "192.0.2.1")
    asked = [new_entry(caller, "drain", f"web/b{n}", wall=lambda: NOW) for n in (1, 2)]
    AuditFile(state).write([asked[0].ended(Outcome.DONE), asked[1].ended(Outcome.FAILED, "why")])
    log = AuditLog(state)
    with (
        log.written(),
        served(daemon, tmp_path / "run", log),
        tls_front(tmp_path / "run" / "tula.sock", certificate.context()) as front,
    ):
        yield front


@pytest.fixture
def remote(tmp_path: Path, front: Front, certificate: Certificate) -> Remote:
    (tmp_path / "tula.yaml").write_text(CONFIGURATION)
    return Remote(tmp_path, front, certificate)


def test_of_every_command_it_is_decided() -> None:
    undecided = [name for name, command in DECIDED.items() if where_of(command) is None]
    assert not undecided, "say asks_daemon, here_only or may_ask_server of it"
    assert sorted(CALLS) == REMOTE, "say here how the two ways of it are compared"
    assert {"run", "clear", "doctor", "check", "backend leave", "lab demo"} <= set(HERE)


@pytest.mark.parametrize(
    "words", [call for calls in CALLS.values() for call in calls], ids=" ".join
)
def test_both_ways_print_the_same(
    remote: Remote, daemon: FakeControl, tmp_path: Path, words: list[str]
) -> None:
    before = deepcopy(vars(daemon))
    places = {"TULA_RUN_DIR": str(tmp_path / "run"), "TULA_STATE_DIR": str(tmp_path / "state")}
    here = remote(*words, **places)
    done = daemon.done
    vars(daemon).update(before)
    there = remote.ask(*words)
    assert remote.front.seen or here.exit_code == 2 or "-f" in words, "it was asked"
    assert (there.exit_code, there.stdout, there.stderr) == (
        *(here.exit_code, here.stdout, here.stderr),
    )
    assert daemon.done == done
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("place", ["before", "after", "environment", "context", "default"])
def test_where_the_server_may_be_named(remote: Remote, place: str) -> None:
    given = ["--server", remote.front.url, "--token-file", str(remote.token)]
    file = remote.folder / "config" / "tula" / "contexts.yaml"
    environment: dict[str, str] = {}
    words = ["status"]
    if place == "before":
        words = [*given, "status"]
    elif place == "after":
        words = ["status", *given]
    elif place == "environment":
        environment = {"TULA_SERVER": given[1], "TULA_TOKEN_FILE": given[3]}
    else:
        file.parent.mkdir(parents=True)
        server = f"{{server: {remote.front.url}, token_file: ../../lb1.token}}"
        default = "default: lb1\n" if place == "default" else ""
        file.write_text(f"contexts:\n  lb1: {server}\n{default}")
        words += ["--context", "lb1"] if place == "context" else []
    found = remote(*words, **environment)
    assert (found.exit_code, found.stderr) == (0, "")
    assert "web" in found.stdout
    assert len(remote.front.seen) == 1
    if place in ("environment", "default"):
        # Said on the command line, this machine's own is meant.
        for option in (["--run-dir", str(remote.folder / "none")], ["--context", "local"]):
            assert remote("confirm", *option, **environment).stderr.startswith("tula: no daemon")
        assert remote("schema", **environment).exit_code == 0
    assert len(remote.front.seen) == 1


@pytest.mark.parametrize("name", HERE)
def test_what_works_on_its_machine_says_so(remote: Remote, name: str) -> None:
    for words in (["--server", "https://lb1", *name.split()], [*name.split(), "--context", "lb1"]):
        found = remote(*words, *NEEDS.get(name, ()))
        assert (found.exit_code, found.stdout) == (2, "")
        wrong = words[0] if words[0] == "--server" else "--context"
        assert found.stderr == (
            f"tula: {name} works on the machine that it runs on; leave out {wrong}\n"
        )


def test_a_file_is_written_on_its_machine(remote: Remote, daemon: FakeControl) -> None:
    found = remote.ask("rollback", "--write")
    assert found.exit_code == 2
    assert found.stderr == (
        "tula: --write is for the machine that has the file; run it on 127.0.0.1\n"
    )
    assert daemon.done == []


WRONG = [
    (["--server", "lb1:8420"], "--server: 'lb1:8420' is no URL; give one such as https://lb1:8420"),
    (["--server", "ftp://lb1"], "--server: 'ftp://lb1' is no URL of a server"),
    (["--server", "https://lb1:99999"], "is no valid URL"),
    (["--server", "https://ann:pw@lb1"], "the URL of a server has no user"),
    (["--server", "https://lb1/api"], "leave out what follows the port"),
    (["--server", "http://192.0.2.1:8420"], "anybody on the way could read the token; use https"),
    (["--server", "http://lb1:8420"], "anybody on the way could read the token; use https"),
    (["--server", "https://lb1"], "https://lb1 wants a token: --token-file F; write F on the bal"),
    (["--server", "https://lb1", "--token-file", "DOC/no"], "no: No such file or directory"),
    (["--server", "https://lb1", "--context", "lb1"], "leave out one of them"),
    (["--server", "https://lb1", "--run-dir", "/run/tula"], "--run-dir is of this machine"),
    (["--token-file", "DOC/lb1.token"], "--token-file: for which server? add --server"),
    (["--context", "lb1"], "--context: no context 'lb1': "),
    (["--fingerprint", "ab"], "--fingerprint: for which server?"),
    ([*LB1, "--fingerprint", "ab"], "--fingerprint: not a fingerprint; give sha256: and the 64"),
    ([*LB1, "--certificate", "DOC/none"], "none: No such file or directory"),
    ([*LB1, "--certificate", "DOC/lb1.token"], "lb1.token: no certificate (PEM) in it"),
    ([*LB1, "--fingerprint", "ab", "--certificate", "F"], "leave out --certificate"),
]


@pytest.mark.parametrize(("options", "words"), WRONG, ids=lambda v: v if isinstance(v, str) else "")
def test_what_is_written_wrong(remote: Remote, options: list[str], words: str) -> None:
    found = remote("status", *options)
    assert (found.exit_code, found.stdout) == (2, "")
    assert words in found.stderr
    assert found.stderr.startswith("tula: ")
    assert found.stderr.count("\n") == 1
    assert TOKEN not in found.stderr


def test_a_server_and_a_context_in_the_environment(remote: Remote) -> None:
    found = remote("status", TULA_SERVER="https://lb1", TULA_CONTEXT="lb2")
    assert found.stderr == "tula: TULA_SERVER and TULA_CONTEXT are both set; unset one of them\n"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], ": no token in it; write it on the balancer with: tula token create NAME --scope S"),
        (["# a comment"], ": no token in it"),
        ([TOKEN, TOKEN], ": 2 tokens; keep one in the file"),
        ([TOKEN[:-1]], ":1: neither a token (tula_ and 43 characters) nor a fingerprint (sha256:"),
        (["", f"Bearer {TOKEN}"], ":2: neither a token"),
        ([TOKEN, "sha256:12"], ":2: not a fingerprint"),
    ],
)
def test_a_token_file_that_is_none(remote: Remote, lines: list[str], words: str) -> None:
    remote.write(*lines)
    found = remote.ask("status")
    assert (found.exit_code, found.stdout) == (2, "")
    assert found.stderr.startswith(f"tula: {remote.token}{words}")
    assert TOKEN[:-1] not in found.stderr
    assert remote.front.seen == []


def test_a_token_file_that_others_can_read(remote: Remote) -> None:
    remote.write(TOKEN, mode=0o640)
    found = remote.ask("status")
    assert found.exit_code == 2
    assert found.stderr == (
        f"tula: {remote.token}: others can read this token (mode 0640); it may be known: "
        f"chmod 600 {remote.token}, or revoke it and create another\n"
    )


def test_fingerprints_as_openssl_prints_them_and_several(remote: Remote) -> None:
    digits = remote.certificate.fingerprint.partition(":")[2].upper()
    pairs = ":".join(digits[at : at + 2] for at in range(0, 64, 2))
    remote.write("# lb1", f"{TOKEN}  # of ann", f"SHA256:{pairs}", f"sha256:{'0' * 64}")
    assert remote.ask("status").exit_code == 0
    remote.write(TOKEN)
    assert remote.ask("status", "--fingerprint", pairs).exit_code == 0


def test_another_certificate_than_the_pinned_one(remote: Remote) -> None:
    """The token stays here, too."""
    remote.write(TOKEN, "sha256:" + "0" * 64)
    found = remote.ask("status")
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr == (
        f"tula: {remote.front.url}: its certificate is another one than was pinned: it is "
        f"{remote.certificate.fingerprint}; if that is what tula token shows on the balancer, "
        "pin it instead, else somebody is in between\n"
    )
    assert remote.front.seen == []


@pytest.mark.parametrize(
    ("names", "days", "words"),
    [
        (["127.0.0.1"], 30, ""),
        (["127.0.0.1"], -1, "its certificate has expired; renew it on the balancer"),
        (["lb2.example"], 30, "its certificate is not for 127.0.0.1; use a name that it has"),
    ],
)
def test_a_certificate_of_an_authority(
    tmp_path: Path, daemon: FakeControl, names: list[str], days: float, words: str
) -> None:
    made = make_certificate(tmp_path, *names, days=days)
    with (
        served(daemon, tmp_path / "run"),
        tls_front(tmp_path / "run" / "tula.sock", made.context()) as front,
    ):
        remote = Remote(tmp_path, front, made)
        pinned = remote.ask("confirm")
        assert (pinned.stdout, pinned.stderr) == ("confirmed\n", ""), (
            "dates and names are no matter"
        )
        # What is named here counts, and not what the token was once written with.
        by_authority = remote.ask("confirm", "--certificate", str(made.pem))
        remote.write(TOKEN)
        unknown = remote.ask("confirm")
    assert words in by_authority.stderr
    assert by_authority.exit_code == (1 if words else 0)
    assert unknown.exit_code == 1
    if not words:
        assert (
            "its certificate is not signed by the authorities that this machine tr"
            in unknown.stderr
        )
        assert "pin it: a line sha256:… in the token file, or --fingerprint" in unknown.stderr
    assert len(front.seen) == (1 if words else 2)


def test_plain_http_on_this_machine(tmp_path: Path, daemon: FakeControl) -> None:
    """As by a tunnel of ssh."""
    with (
        served(daemon, tmp_path / "run"),
        tls_front(tmp_path / "run" / "tula.sock", None) as front,
    ):
        remote = Remote(tmp_path, front, make_certificate(tmp_path, "other"))
        assert remote.ask("confirm").stdout == "confirmed\n"
        front.tls = True
        found = remote.ask("confirm")
    assert found.exit_code == 1
    assert found.stderr.startswith(f"tula: {front.url}: no TLS here that this machine accepts (")


def test_where_nobody_listens(remote: Remote) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    remote.front.port = port
    found = remote.ask("status")
    assert (found.exit_code, found.stdout) == (1, "")
    assert found.stderr == (
        f"tula: https://127.0.0.1:{port}: nobody listens on port {port}; on the balancer, "
        "tula status tells whether its api.listen is in force\n"
    )


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (problem(401, "no such token"), 1, "URL: no such token (the token in TOKEN)"),
        (problem(403, "token:ci has scope read"), 1, "URL: token:ci has scope read (the token in"),
        (problem(429, "too many", "Retry-After: 7"), 1, "URL: too many; ask again in 7 s"),
        (problem(412, "another configuration runs"), 1, "another configuration runs"),
        (problem(428, "If-Match is missing"), 1, "If-Match is missing"),
        (problem(503, "the daemon starts"), 1, "URL: the daemon starts"),
        (problem(422, "number: too small"), 2, "number: too small"),
        (b"HTTP/1.1 302 F\r\nLocation: https://x/\r\n\r\n", 1, "is not Tula's daemon"),
        (b"HTTP/1.1 200 OK\r\n\r\n<html>", 1, "URL: what answers there is not Tula's daemon"),
        (b"", 1, "the daemon at URL ended before it answered"),
    ],
)
def test_what_is_answered_in_its_place(
    remote: Remote, answer: bytes, status: int, words: str
) -> None:
    remote.front.answer = answer
    found = remote.ask("confirm")
    assert (found.exit_code, found.stdout) == (status, "")
    words = words.replace("URL", remote.front.url).replace("TOKEN", str(remote.token))
    assert words in found.stderr
    assert found.stderr.count("\n") == 1
    assert TOKEN not in found.stderr


def test_how_much_of_the_audit_log_comes_at_once(remote: Remote) -> None:
    assert _MOST_AFAR == MOST
    found = remote.ask("audit", "-n", "1001")
    assert found.exit_code == 2
    assert found.stderr == "tula: -n: 1,000 at most from another machine\n"


def test_following_ends_when_the_token_does(remote: Remote) -> None:
    remote.front.answer = problem(401, "the token was revoked")
    found = remote.ask("events", "--follow")
    assert found.exit_code == 1
    assert "the token was revoked" in found.stderr


def test_proxies_are_not_used(remote: Remote) -> None:
    proxies = dict.fromkeys(("HTTPS_PROXY", "https_proxy", "ALL_PROXY"), "http://192.0.2.1:3128")
    given = ["--server", remote.front.url, "--token-file", str(remote.token)]
    assert remote(*given, "confirm", **proxies).stdout == "confirmed\n"


def test_names_of_another_machine_are_completed(remote: Remote) -> None:
    def complete(line: str) -> list[str]:
        asked = {"_TULA_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": "6"}
        return remote(**asked).stdout.split()

    before = f"tula --server {remote.front.url} --token-file {remote.token}"
    assert complete(f"{before} drain web/") == ["web/b1", "web/b2"]
    remote.write("no token")
    assert complete(f"{before} drain web/") == []
