"""The API over the network: TLS, tokens, certificates, and what does not get through.

::

    client-1            lb  api: 10.9.0.1:8420, [fd09::1]:8420      backend-1
        │                │  metrics: 127.0.0.1:9420                    │
    ════╧════════════════╧═════════════════════════════════════════════╧═════  lan
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import ssl
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from support.lab_configurations import service_of, write_config
from support.network_api import Api, context, make_token
from support.running import Running
from tula.engine.certificates import ensure_own, fingerprint_of, own_pair
from tula.lab import Lab, Network, flat, serve_tcp, wait_until

pytestmark = pytest.mark.kernel

HEAD = b"GET /api/v1/status HTTP/1.1\r\nHost: lb\r\n"


class Balancer:
    """A daemon with a gateway, and its clients in other hosts."""

    def __init__(self, network: Network, running: Running) -> None:
        self.network, self.running = network, running
        own = [each for each in network.lb.addresses("eth0") if each not in network.vips]
        self.four = next(each for each in own if "." in each)
        self.six = next(each for each in own if ":" in each and not each.startswith("fe80"))

    def token(self, scope: str) -> str:
        """A new token."""
        name = f"{scope.replace(':', '-')}-{os.urandom(4).hex()}"
        return make_token(self.running.state, name, scope)

    def api(self, scope: str = "read", **other: object) -> Api:
        """For a client in another host."""
        return Api(self.network.client, self.four, token=self.token(scope), **other)

    @property
    def gateway(self) -> int:
        """The process id of the gateway."""
        children = Path(f"/proc/{self.running.pid}/task/{self.running.pid}/children").read_text()
        for pid in children.split():
            with contextlib.suppress(OSError):
                if b"tula.api.gateway" in Path(f"/proc/{pid}/cmdline").read_bytes():
                    return int(pid)
        return 0

    def change(self, **top: object) -> None:
        """Another configuration is accepted: these keys at the top are different."""
        path = self.running.configuration
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **top}))
        self.running.client().apply(None, yes=True)

    def answers(self, api: Api) -> bool:
        """Whether a request is answered by now."""
        with contextlib.suppress(OSError):
            return api.ask("GET", "/api/v1/health").status == 200
        return False

    def alive(self) -> bool:
        """Whether the daemon answers on its socket, and its backend is up."""
        return self.running.states() == {"web/backend-1": "up"}


@pytest.fixture(scope="module")
def balancer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Balancer]:
    with Lab() as lab:
        network = flat(lab, clients=2, backends=1)
        serve_tcp(network.backends[0], [80])
        path = tmp_path_factory.mktemp("gateway") / "tula.yaml"
        made = Balancer(network, Running(network.lb, path))
        health = {"type": "tcp", "interval": "200ms", "timeout": "1s"}
        write_config(path, {"web": service_of(network, health=health)}, **listening(made))
        with made.running:
            made.running.wait_for(backend_1="up")
            yield made


def listening(made: Balancer) -> dict[str, dict[str, object]]:
    return {
        "api": {"listen": [f"{made.four}:8420", f"[{made.six}]:8420", "127.0.0.1:8421"]},
        "metrics": {"listen": "127.0.0.1:9420"},
    }


def test_tls_from_another_host_with_the_fingerprint_that_status_shows(balancer: Balancer) -> None:

    def network() -> dict[str, object]:
        return balancer.running.status()["daemon"]["network"]

    wait_until(lambda: network()["fingerprint"], 60.0, "a certificate")
    assert network()["listening"] == [
        f"https://{balancer.four}:8420",
        f"https://[{balancer.six}]:8420",
        "http://127.0.0.1:8421",
        "http://127.0.0.1:9420",
    ]
    pin = fingerprint_of(own_pair(balancer.running.state).certificate)
    assert network()["fingerprint"] == pin
    api = balancer.api(pin=pin)
    for address in (balancer.four, balancer.six):
        answer = replace(api, address=address).ask("GET", "/api/v1/status")
        assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
        assert answer.json["services"][0]["name"] == "web"
    old = context()
    old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_2
    with old.wrap_socket(api.connect()) as opened:
        assert opened.version() == "TLSv1.2"
    plain = context()
    plain.verify_mode = ssl.CERT_REQUIRED
    with pytest.raises(ssl.SSLCertVerificationError), plain.wrap_socket(api.connect()):
        pytest.fail("who does not pin it must not trust it")


def test_who_has_no_right_gets_nothing_and_changes_nothing(balancer: Balancer) -> None:
    api, drain = balancer.api(), "/api/v1/services/web/backends/backend-1/drain"
    before = balancer.running.states(), len(balancer.running.events())
    for token, path, status in (
        ("", "/api/v1/status", 401),
        ("tula_" + "A" * 43, "/api/v1/status", 401),
        ("", "/metrics", 401),
        ("", "/api/v1/openapi.json", 401),
        ("", "/nowhere", 401),
    ):
        told = replace(api, token=token).ask("GET", path)
        assert told.status == status, path
        assert told.headers["content-type"] == "application/problem+json"
        assert told.headers["www-authenticate"].startswith("Bearer")
        assert told.json["errors"][0]["message"] == told.json["detail"]
    assert api.ask("POST", drain).status == 403
    # What the client says of itself is not what the daemon hears.
    own = {"tula_caller": "root", "tula_scope": "peer", "tula_from": "127.0.0.1"}
    assert api.ask("POST", drain, **own).status == 403
    assert replace(api, token="").ask("POST", drain, **own).status == 401
    expired = make_token(balancer.running.state, f"late-{os.urandom(3).hex()}", "peer", 0.001)
    time.sleep(0.01)
    assert replace(api, token=expired).ask("GET", "/api/v1/status").status == 401
    assert (balancer.running.states(), len(balancer.running.events())) == before
    metrics = replace(api, host=balancer.network.lb, address="127.0.0.1", port=9420, tls=False)
    counted = metrics.ask("GET", "/metrics").body
    for reason in ("no-token", "unknown-token", "expired-token", "scope"):
        assert f'tula_api_refused_total{{reason="{reason}"}}'.encode() in counted
    log = balancer.running.log
    assert "reason=no-token" in log
    assert api.token not in log
    assert "tula_A" not in log


def test_a_token_from_its_making_to_its_end(balancer: Balancer, tmp_path: Path) -> None:
    """As users do it: made on the balancer, used from another host, seen in the audit log."""
    lb, client = balancer.network.lb, balancer.network.client
    pin = fingerprint_of(ensure_own(balancer.running.state).certificate)
    name, drain = f"ops-{os.urandom(3).hex()}", "web/backend-1"
    made = lb.tula("token", "create", name, "--scope", "operate", "--expires", "1h").stdout
    assert f"\nsha256:{pin}\n" in made
    path = tmp_path / "lb.token"
    path.write_text(made)
    path.chmod(0o600)
    url = f"https://{balancer.four}:8420"

    def ask(*words: str) -> subprocess.CompletedProcess[str]:
        return client.tula("--server", url, "--token-file", path, *words, check=False)

    assert ask("drain", drain, "--yes").returncode == 0
    assert balancer.running.states() == {drain: "draining"}
    refused = ask("rollback")
    assert refused.returncode != 0
    assert f"token:{name} has scope operate; this takes configure or more" in refused.stderr
    assert ask("undrain", drain).returncode == 0
    entries = json.loads(lb.tula("audit", "--json").stdout)["entries"]
    mine = [
        each for each in entries if name in (each["who"].removeprefix("token:"), each["subject"])
    ]
    address = next(a for a in client.addresses("eth0") if "." in a)
    assert [(each["action"], each["who"], each["from"], each["result"]) for each in mine] == [
        ("token-create", "root", "local", "done"),
        ("drain", f"token:{name}", address, "done"),
        ("undrain", f"token:{name}", address, "done"),
    ]
    by = [e["by"] for e in balancer.running.events() if e["kind"] in ("drained", "undrained")]
    assert by[-2:] == [f"token:{name}"] * 2

    token = next(line for line in made.splitlines() if line.startswith("tula_"))
    api = replace(balancer.api(pin=pin), token=token)
    with api.secure() as stream:
        stream.settimeout(60)
        head = (
            f"GET /api/v1/events/stream HTTP/1.1\r\nHost: lb\r\nAuthorization: Bearer {token}\r\n"
        )
        stream.sendall(f"{head}\r\n".encode())
        assert stream.recv(65536).startswith(b"HTTP/1.1 200")
        lb.tula("token", "revoke", name)
        assert api.ask("GET", "/api/v1/status").status == 401
        # Something happens, which it must not be told any more.
        lb.tula("weight", drain, "7")
        seen = b""
        while part := stream.recv(65536):
            seen += part
        assert b"weight-set" not in seen
    assert "weight-set" in {each["kind"] for each in balancer.running.events()}
    lb.tula("weight", drain, "configured")


def test_a_backends_token_sees_its_own_and_nothing_else(balancer: Balancer) -> None:
    api = balancer.api("backend:backend-1")
    own = api.ask("GET", "/api/v1/backends/backend-1")
    assert own.status == 200
    (place,) = own.json["services"]
    assert (place["service"], place["state"]) == ("web", "up")
    for path in ("status", "events", "events/stream", "history", "configuration", "openapi.json"):
        assert api.ask("GET", f"/api/v1/{path}").status == 403
    assert api.ask("GET", "/metrics").status == 403
    others = [api.ask("GET", f"/api/v1/backends/{name}") for name in ("backend-2", "none")]
    assert [each.status for each in others] == [403, 403]
    assert others[0].body == others[1].body
    assert balancer.api().ask("GET", "/api/v1/backends/none").status == 404


def test_damaged_tokens_let_nobody_in_and_are_told(balancer: Balancer) -> None:
    api, path = balancer.api("peer"), balancer.running.state / "tokens.json"
    whole = path.read_bytes()
    path.write_bytes(whole[:-30])
    assert api.ask("GET", "/api/v1/status").status == 503

    def told() -> bool:
        return any(
            "tokens.json is damaged" in each for each in balancer.running.status()["problems"]
        )

    wait_until(told, 60.0, "a problem in status")
    assert balancer.alive(), "the socket needs no token"
    path.write_bytes(whole)
    assert api.ask("GET", "/api/v1/status").status == 200
    wait_until(lambda: not told(), 60.0, "no problem")


def test_what_changes_by_a_signal_is_in_the_audit_log(balancer: Balancer) -> None:
    path = balancer.running.configuration
    path.write_text(path.read_text() + "# looked through\n")
    os.kill(balancer.running.pid, signal.SIGHUP)

    def found() -> list[tuple[str, str, str]]:
        entries = json.loads(balancer.network.lb.tula("audit", "--json").stdout)["entries"]
        return [(e["who"], e["action"], e["result"]) for e in entries if e["who"] == "SIGHUP"]

    wait_until(lambda: found() == [("SIGHUP", "apply", "done")], 60.0, "the signal's entry")


def test_plain_http_only_on_a_loopback_address(balancer: Balancer) -> None:
    api = replace(balancer.api(), tls=False)
    with pytest.raises((OSError, http.client.HTTPException)):
        api.ask("GET", "/api/v1/health")
    own = replace(api, host=balancer.network.lb, address="127.0.0.1", port=8421)
    assert own.ask("GET", "/api/v1/health").status == 200
    assert replace(own, token="").ask("GET", "/api/v1/health").status == 401


def test_metrics_have_a_listener_of_their_own(balancer: Balancer) -> None:
    api = Api(balancer.network.lb, "127.0.0.1", 9420, tls=False)
    answer = api.ask("GET", "/metrics")
    assert answer.status == 200
    assert b'tula_backend_state{backend="backend-1"' in answer.body
    assert b"tula_api_connections" in answer.body
    assert api.ask("GET", "/api/v1/status").status == 404
    assert api.ask("POST", "/metrics", b"x").status == 405
    assert balancer.api().ask("GET", "/metrics").status == 200


def test_what_is_malformed_is_refused(balancer: Balancer) -> None:
    api = balancer.api("configure")
    given = f"Authorization: Bearer {api.token}\r\n".encode()
    post = b"POST /api/v1/apply HTTP/1.1\r\nHost: lb\r\n" + given
    yaml_body = b"Content-Type: application/yaml\r\n"
    before = balancer.running.status()["configuration"]["digest"]
    for sent, status in (
        (b"\0\1\2\3\r\n\r\n", 400),
        (b"GET http://lb/api/v1/status HTTP/1.1\r\nHost: lb\r\n" + given + b"\r\n", 400),
        (HEAD + given + given + b"\r\n", 400),
        (HEAD + b"X: " + b"a" * 20000 + b"\r\n\r\n", 431),
        (b"CONNECT /x HTTP/1.1\r\nHost: lb\r\n\r\n", 501),
        (post + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (post + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        (post + b"Transfer-Encoding: gzip\r\n\r\n", (400, 501)),
        (post + b"Content-Length: 200000\r\n\r\n", 413),
        (post + yaml_body + b"Content-Length: 20000000\r\n\r\n", 413),
        (post + yaml_body + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
    ):
        with api.secure() as opened:
            opened.sendall(sent)
            told = b"".join(iter(lambda: opened.recv(65536), b""))
            statuses = status if isinstance(status, tuple) else (status,)
            assert int(told.split()[1]) in statuses, (sent[:200], told)
            assert b"application/problem+json" in told
            assert told.count(b"HTTP/1.1 ") == 1
    assert balancer.running.status()["configuration"]["digest"] == before
    assert balancer.alive()


def test_a_configuration_comes_through_whole(balancer: Balancer) -> None:
    api = balancer.api("configure")
    text = balancer.running.configuration.read_bytes() + b"# " + b"x" * (15 << 20) + b"\n"
    told = api.ask("POST", "/api/v1/plan", text, content_type="application/yaml")
    assert told.status == 200
    wrong = api.ask("POST", "/api/v1/plan", b"frobs: 1\n", content_type="application/yaml")
    assert wrong.status == 422
    assert wrong.json["errors"][0]["line"] == 1


def test_another_spelling_of_a_path_is_no_way_round(balancer: Balancer) -> None:
    api = balancer.api()
    with api.secure() as opened:
        # The daemon would take it for its own stream, and the gateway wait for an answer's end.
        opened.sendall(
            f"GET /api/v1/events/%73tream HTTP/1.1\r\nHost: lb\r\nAuthorization: Bearer {api.token}"
            "\r\n\r\n".encode()
        )
        text = b""
        while b"id: " not in text:
            text += (received := opened.recv(4096))
            assert received
        assert text.startswith(b"HTTP/1.1 200 OK\r\n")
    for path in ("/api/v1/health/", "//api/v1/health", "/api/v1/%2e/health", "/metrics/"):
        assert api.ask("GET", path).status == 404


def test_what_is_no_request_ends_a_connection_that_was_asked_for_a_head(balancer: Balancer) -> None:
    with balancer.api().secure() as opened:
        opened.sendall(b"HEAD / HTTP/1.1\r\nHost: lb\r\n\r\nno request\r\n\r\n")
        text = b"".join(iter(lambda: opened.recv(65536), b""))
    head, _, refused = text.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 401 ")
    assert refused.startswith(b"HTTP/1.1 400 ")
    assert json.loads(refused.partition(b"\r\n\r\n")[2])["status"] == 400
    assert "Traceback" not in balancer.running.log


def test_requests_follow_each_other_on_a_connection(balancer: Balancer) -> None:
    api = balancer.api()
    given = HEAD + f"Authorization: Bearer {api.token}\r\n\r\n".encode()
    with api.secure() as opened:
        # Pipelined, and in pieces.
        opened.sendall(given + given[:30])
        file = opened.makefile("rb")
        for _ in range(2):
            assert b" 200 " in file.readline()
            head = list(iter(file.readline, b"\r\n"))
            length = next(int(h.split()[1]) for h in head if h.startswith(b"content-length"))
            assert json.loads(file.read(length))["services"]
            opened.sendall(given[30:])


def test_the_certificate_is_exchanged_while_it_runs(balancer: Balancer, tmp_path: Path) -> None:
    api, folder = balancer.api(), tmp_path / "tls"
    own = api.fingerprint()
    first, second = (ensure_own(tmp_path / name) for name in ("first", "second"))
    folder.mkdir()
    files = folder / "certificate.pem", folder / "key.pem"

    def put(certificate: Path, key: Path) -> None:
        for source, target in ((certificate, files[0]), (key, files[1])):
            aside = target.with_suffix(".new")
            aside.write_bytes(source.read_bytes())
            aside.replace(target)

    put(first.certificate, first.key)
    keys = dict(zip(("certificate", "key"), map(str, files), strict=True))
    try:
        balancer.change(api={**listening(balancer)["api"], **keys})
        shown = fingerprint_of(first.certificate)
        wait_until(lambda: api.fingerprint() == shown, 60.0, "the configured certificate")
        # With a certificate, loopback is TLS too.
        assert balancer.running.status()["daemon"]["network"]["listening"][2].startswith("https")
        with api.secure() as before:
            put(second.certificate, first.key)  # not its key
            balancer.running.wait_for_problem(f"{files[1]} is not the key of {files[0]}")
            assert api.fingerprint() == shown, "the one before is still in use"
            put(second.certificate, second.key)
            renewed = fingerprint_of(second.certificate)
            wait_until(lambda: api.fingerprint() == renewed, 60.0, "the new certificate")
            before.sendall(HEAD + f"Authorization: Bearer {api.token}\r\n\r\n".encode())
            assert b" 200 " in before.recv(65536).splitlines()[0]
        wait_until(lambda: not balancer.running.problems, 60.0, "no problem")
        kinds = [each["kind"] for each in balancer.running.events()]
        assert kinds[-1] == "api-recovered"
        assert "api-warning" in kinds
    finally:
        balancer.change(**listening(balancer))
    wait_until(lambda: api.fingerprint() == own, 60.0, "the own certificate, as it was")
    for path in (
        own_pair(balancer.running.state).certificate,
        own_pair(balancer.running.state).key,
    ):
        path.unlink()
    wait_until(lambda: api.fingerprint() != own, 60.0, "another one of its own")
    wait_until(lambda: not balancer.running.problems, 60.0, "no problem")


def test_listeners_follow_what_runs(balancer: Balancer) -> None:
    api = balancer.api("configure")
    moved = {"listen": [f"{balancer.four}:8422", "198.51.100.99:8420"]}
    text = yaml.safe_load(balancer.running.configuration.read_text())
    text = yaml.safe_dump({**text, "api": moved}).encode()
    gateway = balancer.gateway
    balancer.running.client().apply(text, confirm=60.0)
    there = replace(api, port=8422)
    wait_until(lambda: balancer.answers(there), 60.0, "the new address")
    assert not balancer.answers(api)
    balancer.running.wait_for_problem("api: cannot listen on 198.51.100.99:8420: this machine")
    balancer.network.lb.add_address("eth0", "198.51.100.99/32")
    wait_until(lambda: not balancer.running.problems, 60.0, "an address that came later")
    # Not confirmed: the one before comes back, with its addresses.
    balancer.running.client().send("POST", "/rollback")
    wait_until(lambda: balancer.answers(api), 60.0, "the address before")
    assert not balancer.answers(there)
    balancer.change(api={}, metrics={})
    wait_until(lambda: not balancer.gateway, 60.0, "no process that nobody needs")
    balancer.change(**listening(balancer))
    wait_until(lambda: balancer.answers(api), 60.0, "the first address")
    assert balancer.gateway not in (0, gateway)


def test_the_gateway_has_no_rights(balancer: Balancer) -> None:
    found = dict(
        line.partition(":\t")[::2]
        for line in Path(f"/proc/{balancer.gateway}/status").read_text().splitlines()
    )
    for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(found[kind], 16) == 0, kind
    assert found["NoNewPrivs"] == "1"
    print("RSS", found["VmRSS"])


def test_it_is_started_again_and_nobody_is_refused_meanwhile(balancer: Balancer) -> None:
    api, gateway = balancer.api(), balancer.gateway
    os.kill(gateway, signal.SIGKILL)
    # The sockets are the daemon's: whoever connects now waits, and is answered.
    assert api.ask("GET", "/api/v1/health").status == 200
    assert balancer.gateway not in (0, gateway)
    assert balancer.alive()
    assert "task-failed" in [each["kind"] for each in balancer.running.events()]
    assert balancer.running.figure("tula_task_restarts_total") == 1


def test_it_goes_with_the_daemon(balancer: Balancer) -> None:
    api, gateway = balancer.api(), balancer.gateway
    balancer.running.kill()
    wait_until(lambda: not Path(f"/proc/{gateway}").exists(), 60.0, "its end")
    with pytest.raises(ConnectionRefusedError):
        api.connect()
    balancer.running.start()
    wait_until(lambda: balancer.answers(api), 60.0, "the gateway of the next daemon")
    gateway = balancer.gateway
    balancer.running.stop()
    assert not Path(f"/proc/{gateway}").exists()
    balancer.running.start()
    wait_until(lambda: balancer.answers(api), 60.0, "the gateway of the next daemon")
