"""Every change that is asked for is in the audit log, with what came of it, before the answer."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from support.fake_control import FakeControl
from tula.api.app import make_app
from tula.api.callers import Operator, Reader
from tula.engine.audit import AuditLog, Entry, Result, describe_entry, read_audit
from tula.engine.callers import GatewayProcesses
from tula.engine.control import BusyError
from tula.model.errors import KernelError
from tula.users import user_name

BACKEND = "/api/v1/services/web/backends/b1"
YAML = {"Content-Type": "application/yaml"}


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def app(control: FakeControl, tmp_path: Path) -> Iterator[FastAPI]:
    log = AuditLog(tmp_path)
    with log.written():
        yield make_app(control, GatewayProcesses({4711}), log)


@pytest.fixture
def api(app: FastAPI) -> TestClient:
    return TestClient(app, base_url="http://tula", client=("0", 1), raise_server_exceptions=False)


def through_the_gateway(app: FastAPI, scope: str) -> TestClient:
    headers = {"Tula-Caller": "ci", "Tula-Scope": scope, "Tula-From": "192.0.2.1"}
    return TestClient(app, base_url="http://tula", client=("0", 4711), headers=headers)


def entries(directory: Path) -> list[Entry]:
    return read_audit(directory, 100)


def shown(entry: Entry) -> dict[str, Any]:
    found = describe_entry(entry)
    return {name: found[name] for name in ("who", "scope", "from", "action", "subject", "details")}


def test_who_what_and_from_where(api: TestClient, app: FastAPI, tmp_path: Path) -> None:
    assert api.post(f"{BACKEND}/drain?force=true", json={"deadline": 600}).status_code == 200
    token = through_the_gateway(app, "configure")
    assert token.put(f"{BACKEND}/weight", json={"weight": 0}).status_code == 200
    given = {**YAML, "If-Match": "*"}
    assert token.post("/api/v1/apply?confirm=60", content=b"secret", headers=given).is_success
    assert token.post("/api/v1/rollback?number=7").is_success
    found = entries(tmp_path)
    assert [each.result for each in found] == [Result.DONE] * 4
    local = {"who": user_name(0), "scope": "local", "from": "local"}
    remote = {"who": "token:ci", "scope": "configure", "from": "192.0.2.1"}
    digest = hashlib.sha256(b"secret").hexdigest()
    assert [shown(each) for each in found] == [
        local
        | {"action": "drain", "subject": "web/b1", "details": {"force": "true", "deadline": 600}},
        remote | {"action": "weight", "subject": "web/b1", "details": {"weight": 0}},
        remote | {"action": "apply", "subject": "", "details": {"confirm": "60", "digest": digest}},
        remote | {"action": "rollback", "subject": "", "details": {"number": "7"}},
    ]
    assert "secret" not in "".join(path.read_text() for path in tmp_path.glob("audit*"))


def test_what_was_refused_and_why(api: TestClient, control: FakeControl, tmp_path: Path) -> None:
    assert api.post("/api/v1/services/web/backends/b9/drain").status_code == 404
    assert api.put(f"{BACKEND}/weight", json={"weight": 70_000}).status_code == 422
    assert api.post("/api/v1/apply", content=b"{a: 1}").status_code == 415
    control.loss = ("this takes the last backend of web",)
    assert api.post(f"{BACKEND}/disable").status_code == 409
    control.error = BusyError("the daemon ends")
    assert api.post("/api/v1/reload").status_code == 503
    control.error = KernelError("nft: refused")
    assert api.post("/api/v1/reload").status_code == 500
    control.error = ZeroDivisionError("secret")
    assert api.post("/api/v1/confirm").status_code == 500
    found = entries(tmp_path)
    refused = [Result.REFUSED] * 5
    assert [each.result for each in found] == [*refused, Result.FAILED, Result.FAILED]
    assert [each.why.partition(";")[0] for each in found] == [
        "no backend web/b9 in the running configuration",
        "weight: Input should be less than or equal to 65535",
        "send the configuration's text as application/yaml",
        "this takes the last backend of web",
        "the daemon ends",
        "nft: refused",
        "internal error: ZeroDivisionError",
    ]


def test_what_changes_nothing_is_not_entered(api: TestClient, app: FastAPI, tmp_path: Path) -> None:
    for path in ("status", "events", "history"):
        assert api.get(f"/api/v1/{path}").is_success
    assert api.post("/api/v1/plan").is_success
    assert api.post("/api/v1/apply?dry_run=true", content=b"x", headers=YAML).is_success
    # Else whoever has any token could push what was done out of the log.
    assert through_the_gateway(app, "read").post(f"{BACKEND}/drain").status_code == 403
    assert through_the_gateway(app, "backend:b1").post("/api/v1/reload").status_code == 403
    assert entries(tmp_path) == []


def test_a_route_of_tomorrow_is_entered_too(app: FastAPI, api: TestClient, tmp_path: Path) -> None:
    @app.post("/api/v1/standby/{name}")
    async def standby(name: str, _: Operator) -> dict[str, str]:
        (begun,) = entries(tmp_path)
        assert (begun.action, begun.result) == ("standby", Result.BEGUN)
        return {"name": name}

    @app.post("/api/v1/look")
    async def look(_: Reader) -> None:
        return

    assert api.post("/api/v1/standby/lb2").is_success
    assert api.post("/api/v1/look").is_success
    (done,) = entries(tmp_path)
    assert (done.action, done.subject, done.result) == ("standby", "lb2", Result.DONE)
