"""Who may give the daemon a configuration, and that no two overwrite each other's.

By HTTP, with a real control on the fake kernel.
"""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import pytest

from support.api_daemon import ApiDaemon
from support.configurations import render_config
from support.daemon import CONFIG
from tula.engine.history import digest_of
from tula.engine.store import Store
from tula.model.event import EventKind

YAML = {"Content-Type": "application/yaml"}
BY_FILE = render_config(CONFIG)
BY_API = BY_FILE.replace("  source: file\n", "  source: api\n")
CHECKS = re.compile(r"checks: .*")
WITH_SCRIPT = CHECKS.sub("health: {type: script, command: [/bin/check]}", BY_API)
WITH_SECRET = CHECKS.sub("health: {type: http, headers: {Cookie: c1}}", BY_API)
WRITERS = 100 if os.environ.get("TULA_SOAK") else 20
B0 = "/services/web/backends/b0"


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[ApiDaemon]:
    made = ApiDaemon(tmp_path, BY_API)
    with made.served():
        yield made


def put(client: httpx2.Client, text: str, match: str | None = "*", query: str = "") -> Any:
    headers = {**YAML, **({"If-Match": match} if match is not None else {})}
    return client.post(f"/apply{query}", content=text.encode(), headers=headers)


def first_error(answer: Any) -> dict[str, Any]:
    found: dict[str, Any] = answer.json()["errors"][0]
    return found


def commented(text: str, what: object) -> str:
    return f"{text}# {what}\n"


# ── If-Match ─────────────────────────────────────────────────────────────────────────────────


def test_the_tag_of_the_running_configuration(daemon: ApiDaemon) -> None:
    with daemon.client("configure") as client:
        tag = client.get("/configuration").headers["etag"]
        assert tag == f'"{client.get("/status").json()["configuration"]["digest"]}"'
        text = commented(BY_API, 1)
        assert put(client, text, None).status_code == 428
        assert put(client, text, '"0"').status_code == 412
        assert daemon.running_text == BY_API
        done = put(client, text, tag)
        assert (done.status_code, done.headers["etag"]) == (200, f'"{digest_of(text.encode())}"')
        assert client.get("/configuration").headers["etag"] == done.headers["etag"]
        late = put(client, commented(BY_API, 2), tag)
        assert (late.status_code, late.headers["etag"]) == (412, done.headers["etag"])
        for verb in ("/rollback", "/confirm"):
            assert client.post(verb, headers={"If-Match": tag}).status_code == 412
        assert daemon.running_text == text
        back = client.post("/rollback", headers={"If-Match": done.headers["etag"]})
        assert (back.status_code, back.headers["etag"]) == (200, tag)
        assert daemon.running_text == BY_API


def test_what_waits_for_confirmation_has_a_tag_too(daemon: ApiDaemon) -> None:
    with daemon.client("configure") as client:
        tag = put(client, commented(BY_API, 1), query="?confirm=600").headers["etag"]
        other = '"' + "0" * 64 + '"'
        assert client.post("/confirm", headers={"If-Match": other}).status_code == 412
        assert client.post("/rollback", headers={"If-Match": other}).status_code == 412
        assert client.post("/confirm?dry_run=true", headers={"If-Match": tag}).is_success
        assert daemon.loop.snapshot.tentative is not None
        done = client.post("/confirm", headers={"If-Match": tag})
        assert (done.json()["confirmed"], done.headers["etag"]) == (True, tag)
        assert client.post("/confirm").status_code == 409


def test_of_a_hundred_writers_one_wins(daemon: ApiDaemon) -> None:
    with daemon.client("configure") as client:
        tag = client.get("/configuration").headers["etag"]
    together = threading.Barrier(100)

    def write(number: int) -> tuple[int, str]:
        text = commented(BY_API, f"writer {number}")
        with daemon.client("configure") as client:
            together.wait(60)
            return put(client, text, tag).status_code, text

    with ThreadPoolExecutor(100) as pool:
        found = list(pool.map(write, range(100)))
    assert sorted(status for status, _ in found) == [200] + [412] * 99
    (winner,) = [text for status, text in found if status == 200]
    assert daemon.running_text == winner
    assert daemon.daemon.store.configuration() == winner.encode()


def test_writers_who_try_again_lose_nothing(daemon: ApiDaemon) -> None:
    """Each adds its line to what runs, as a program would: read, change, write if unchanged."""

    def write(number: int) -> None:
        with daemon.client("configure") as client:
            while True:
                have = client.get("/configuration")
                mine = commented(have.text, f"writer {number}")
                answer = put(client, mine, have.headers["etag"], "?yes=true")
                if answer.is_success:
                    return
                assert answer.status_code == 412, answer.text

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(write, range(WRITERS)))
    lines = [line for line in daemon.running_text.splitlines() if line.startswith("# writer")]
    assert sorted(lines) == sorted(f"# writer {number}" for number in range(WRITERS))


# ── Who owns it ──────────────────────────────────────────────────────────────────────────────


def test_the_files_own_configuration(tmp_path: Path) -> None:
    daemon = ApiDaemon(tmp_path, BY_FILE)
    with daemon.served(), daemon.client("configure") as client, daemon.client() as local:
        answer = put(client, commented(BY_FILE, 1))
        assert (answer.status_code, answer.json()["type"]) == (409, "urn:problem-type:tula:source")
        assert "change it there" in first_error(answer)["message"]
        assert put(client, commented(BY_FILE, 1), query="?dry_run=true").status_code == 409
        assert daemon.running_text == BY_FILE
        assert client.post(f"{B0}/drain").is_success
        assert client.post("/reload").is_success
        assert put(local, commented(BY_FILE, 1), None).is_success, "a user of this machine"
        assert client.post("/rollback").is_success
        assert put(local, commented(BY_FILE, 2), None, "?confirm=600").is_success
        assert client.post("/confirm").is_success
        assert client.get("/status").json()["configuration"]["source"] == "file"


def test_the_file_was_only_the_first(daemon: ApiDaemon) -> None:
    with daemon.client("configure") as client, daemon.client() as local:
        assert put(client, commented(BY_API, 1)).is_success
        told = client.get("/status").json()["configuration"]
        assert (told["source"], told["file_differs"]) == ("api", False)
        daemon.path.write_text(commented(BY_FILE, "new"))
        for asking in (client, local):
            answer = asking.post("/reload")
            assert answer.status_code == 409
            message = first_error(answer)["message"]
            assert message.endswith(f"take the file in its place: tula apply -f {daemon.path}")
        told = client.get("/status").json()["configuration"]
        assert told["file_differs"] is False
        events = client.get("/events").json()["events"]
        ignored = [e for e in events if e["kind"] == EventKind.CONFIGURATION_IGNORED]
        assert len(ignored) == 1
        assert "is ignored" in ignored[0]["message"]
        assert put(local, daemon.path.read_text(), None).is_success
        assert client.get("/status").json()["configuration"]["source"] == "file"


def test_what_only_the_local_file_may_give(daemon: ApiDaemon) -> None:
    with daemon.client("configure") as client, daemon.client("read") as reader:
        listener = BY_API.replace("  source: api\n", "  source: api\n  listen: ['0.0.0.0:1']\n")
        for text, path in ((WITH_SCRIPT, "services.web.health.command"), (listener, "api")):
            for query in ("", "?dry_run=true"):
                answer = put(client, text, query=query)
                assert answer.status_code == 422
                error = first_error(answer)
                assert (error["path"], str(daemon.path) in error["message"]) == (path, True)
                line = text.splitlines()[error["line"] - 1]
                assert path.rpartition(".")[2] in line
        assert daemon.running_text == BY_API
        daemon.path.write_text(WITH_SCRIPT)
        assert put(client, WITH_SCRIPT).is_success, "the local file has it now"
        daemon.path.write_text(BY_API)
        assert put(client, commented(WITH_SCRIPT, 1)).is_success, "it runs there already"
        assert reader.get("/configuration").is_success


def test_a_hidden_secret_is_no_secret(daemon: ApiDaemon) -> None:
    with daemon.client("configure") as client, daemon.client("read") as reader:
        assert put(client, WITH_SECRET).is_success
        shown, whole = reader.get("/configuration"), client.get("/configuration")
        assert whole.text == WITH_SECRET
        assert "c1" not in shown.text
        assert shown.headers["etag"] == whole.headers["etag"]
        assert shown.headers["vary"] == "Authorization"
        for query in ("", "?dry_run=true"):
            answer = put(client, commented(shown.text, 1), query=query)
            assert answer.status_code == 422
            assert first_error(answer)["path"] == "services.web.health.headers.Cookie"
        assert daemon.running_text == WITH_SECRET


# ── Dry runs ─────────────────────────────────────────────────────────────────────────────────


def machine_of(daemon: ApiDaemon) -> object:
    """All that a change could touch."""
    state = {
        path.name: path.read_bytes()
        for path in sorted(daemon.daemon.store.directory.iterdir())
        if path.is_file()
    }
    snapshot = daemon.loop.snapshot
    table = daemon.daemon.machine.nftables.table
    return state, snapshot.revision, repr(table), len(daemon.daemon.events.events)


def test_a_dry_run_changes_nothing(daemon: ApiDaemon) -> None:
    other = BY_API.replace("ports: [80]", "ports: [81]")
    last = '{"deadline": 60}'
    with daemon.client("configure") as client:
        assert put(client, commented(BY_API, 1)).is_success
        assert client.post("/services/web/backends/b1/disable").is_success
        before = machine_of(daemon)
        kind = {"Content-Type": "application/json"}
        drained = client.post(f"{B0}/drain?dry_run=true", content=last, headers=kind)
        assert drained.json()["type"] == "urn:problem-type:tula:loss"
        drained = client.post(f"{B0}/drain?dry_run=true&force=true", content=last, headers=kind)
        assert drained.json()["after"]["state"] == "draining"
        assert client.post("/services/web/backends/b9/enable?dry_run=true").status_code == 404
        weighed = client.put(f"{B0}/weight?dry_run=true", json={"weight": 3}).json()
        assert weighed["after"]["effective_weight"] == 3
        planned = put(client, other, query="?dry_run=true").json()
        assert planned["changed"] is True
        assert planned["summary"][0].startswith("~ service web: ports 80 → 81")
        assert put(client, other, '"0"', "?dry_run=true").status_code == 412
        assert put(client, "interfaces: [", query="?dry_run=true").status_code == 422
        assert (
            put(client, "interfaces: [x9]\nservices: {}\n", query="?dry_run=true").status_code
            == 422
        )
        back = client.post("/rollback?dry_run=true").json()
        assert (back["changed"], back["digest"]) == (True, digest_of(BY_API.encode()))
        assert client.post("/rollback?number=77&dry_run=true").status_code == 422
        assert client.post("/confirm?dry_run=true").status_code == 409
        assert client.post("/reload?dry_run=true").status_code == 409
        assert machine_of(daemon) == before


def test_what_a_dry_run_says_is_what_comes(daemon: ApiDaemon) -> None:
    other = BY_API.replace("ports: [80]", "ports: [81]")
    with daemon.client() as client:
        would, did = put(client, other, query="?dry_run=true").json(), put(client, other).json()
        for told in (would, did):
            del told["dry_run"]
        assert json.dumps(would["summary"]) == json.dumps(did["summary"])
        assert (would["changed"], would["digest"]) == (did["changed"], did["digest"])
        for verb in ("drain", "undrain", "disable", "enable"):
            would = client.post(f"{B0}/{verb}?dry_run=true").json()
            did = client.post(f"{B0}/{verb}").json()
            assert (would["before"], would["after"]) == (did["before"], did["after"])
        assert Store(daemon.daemon.store.directory).configuration() == other.encode()
