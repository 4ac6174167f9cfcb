"""The API over a fake daemon: what is asked for, and one shape for what goes wrong."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from support.fake_control import STEP, FakeControl, make_events
from tula.api.app import make_app
from tula.engine.control import (
    ApplyOutcome,
    BusyError,
    Control,
    NothingToConfirmError,
    Order,
    RefusedError,
)
from tula.engine.history import Entry, digest_of
from tula.model.errors import KernelError, StateError
from tula.model.problem import PlacedProblem

BACKEND = "/services/web/backends/b1"


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


@pytest.fixture
def api(control: Control) -> TestClient:
    return TestClient(
        make_app(control), base_url="http://tula/api/v1", raise_server_exceptions=False
    )


def errors(answer: Any) -> list[dict[str, Any]]:
    """The errors of an answer, which is of the shape of RFC 9457."""
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert set(body) == {"type", "title", "status", "detail", "errors"}
    assert body["status"] == answer.status_code
    assert body["type"] == "about:blank" or body["type"].startswith("urn:problem-type:tula:")
    assert body["detail"].startswith(body["errors"][0]["message"])
    assert all(error["message"] for error in body["errors"])
    found: list[dict[str, Any]] = body["errors"]
    return found


def test_status_is_that_of_the_command(api: TestClient) -> None:
    answer = api.get("/status")
    assert answer.status_code == 200
    assert [service["name"] for service in answer.json()["services"]] == ["web"]
    assert answer.json()["daemon"]["pid"] == 4711


def test_a_backend_with_its_overrides(api: TestClient) -> None:
    assert api.post(f"{BACKEND}/disable").status_code == 200
    assert api.put(f"{BACKEND}/weight", json={"weight": 7}).status_code == 200
    assert api.get(BACKEND).json() == {
        "service": "web",
        "backend": "b1",
        "state": "disabled",
        "reason": "disabled by the operator",
        "weight": 100,
        "effective_weight": 0,
        "connections": None,
        "connections_estimated": False,
        "keeps_connections": False,
        "overrides": [
            {"what": "disable", "text": "disabled", "end": "tula enable web/b1"},
            {
                "what": "weight",
                "text": "at weight 7 in place of the configured 100",
                "end": "tula weight web/b1 configured",
            },
        ],
        "keeps_clients": False,
    }
    answer = api.get("/services/web/backends/b11")
    assert (answer.status_code, errors(answer)[0]["near"]) == (404, ["web/b1", "web/b2"])


def test_health(api: TestClient) -> None:
    assert api.get("/health").json()["status"] == "ok"


def test_events_behind_a_number_and_the_last_ones(api: TestClient, control: FakeControl) -> None:
    control.happened = make_events(5)

    def numbers(query: str) -> list[int]:
        return [event["number"] for event in api.get(f"/events{query}").json()["events"]]

    assert numbers("") == [1, 2, 3, 4, 5]
    assert numbers("?limit=2") == [4, 5]
    assert numbers("?after=0&limit=2") == [1, 2]
    assert numbers("?after=4") == [5]
    assert numbers("?after=5") == []
    assert numbers("?after=77") == [1, 2, 3, 4, 5], "a number of an earlier daemon"
    assert api.get("/events").json()["epoch"] == "first"
    assert numbers("?after=4&epoch=first") == [5]
    assert numbers("?after=4&epoch=earlier") == [1, 2, 3, 4, 5], "not those behind its own 4 alone"


def test_trace(api: TestClient) -> None:
    flow = {"vip": "10.0.0.100", "port": 80, "client": "10.0.0.9", "client_port": 1234}
    answer = api.get("/trace", params=flow).json()
    assert set(answer) == {"service", "backend", "reason", "persistence"}
    assert answer["service"] == "web"
    assert api.get("/trace", params=flow | {"protocol": "udp"}).json()["service"] is None
    later = api.get("/trace", params=flow | {"fragment": 31}).json()
    assert "first fragment" in later["reason"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"vip": "web"},
        {"port": 65536},
        {"client": "2001:db8::1"},
        {"protocol": "sctp"},
        {"fragment": 65536},
    ],
    ids=str,
)
def test_trace_refuses(api: TestClient, wrong: dict[str, Any]) -> None:
    flow = {"vip": "10.0.0.100", "port": 80, "client": "10.0.0.9", "client_port": 1234}
    answer = api.get("/trace", params=flow | wrong)
    assert answer.status_code == 422
    assert len(errors(answer)) == 1


@pytest.mark.parametrize(
    ("verb", "body", "done"),
    [
        ("drain", None, ("drain", ("web", "b1"), None)),
        ("drain", {"deadline": 600}, ("drain", ("web", "b1"), 600.0)),
        ("drain", {"deadline": None}, ("drain", ("web", "b1"), None)),
        ("undrain", None, ("undrain", ("web", "b1"))),
        ("disable", None, ("disable", ("web", "b1"))),
        ("enable", None, ("enable", ("web", "b1"))),
    ],
)
def test_verbs(
    api: TestClient, control: FakeControl, verb: str, body: Any, done: tuple[object, ...]
) -> None:
    answer = api.post(f"{BACKEND}/{verb}", json=body) if body else api.post(f"{BACKEND}/{verb}")
    assert answer.status_code == 200
    told = answer.json()
    assert (told["service"], told["backend"], told["dry_run"]) == ("web", "b1", False)
    assert told["before"] == {"state": "up", "weight": 100, "effective_weight": 100}
    assert (told["after"]["state"] == "up") is (verb in ("undrain", "enable"))
    assert control.done == [done]


def test_a_dry_run_says_what_would_be(api: TestClient, control: FakeControl) -> None:
    told = api.post(f"{BACKEND}/drain?dry_run=true").json()
    assert told["dry_run"] is True
    assert (told["before"]["state"], told["after"]["state"]) == ("up", "draining")
    assert told["after"]["effective_weight"] == 0
    told = api.put(f"{BACKEND}/weight?dry_run=true", json={"weight": 7}).json()
    assert told["after"]["effective_weight"] == 7
    for path in ("/undrain", "/disable", "/enable"):
        assert api.post(f"{BACKEND}{path}?dry_run=true").status_code == 200
    assert api.post("/apply?dry_run=true", content=b"some", headers=YAML).json()["dry_run"]
    for path in ("/reload", "/confirm", "/rollback"):
        answer = api.post(f"{path}?dry_run=true")
        assert answer.json()["dry_run"] is True
        assert "etag" not in answer.headers or path == "/confirm"
    assert api.get(BACKEND).json()["overrides"] == []
    assert control.done == []
    missing = api.post("/services/web/backends/b11/drain?dry_run=true")
    assert (missing.status_code, errors(missing)[0]["near"][0]) == (404, "web/b1")
    control.loss = ("the last one",)
    assert api.post(f"{BACKEND}/drain?dry_run=true").status_code == 409
    assert api.post("/reload?dry_run=true").status_code == 409


@pytest.mark.parametrize("weight", [0, 65535, None])
def test_weight(api: TestClient, control: FakeControl, weight: int | None) -> None:
    assert api.put(f"{BACKEND}/weight", json={"weight": weight}).status_code == 200
    assert control.done == [("weight", ("web", "b1"), weight)]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("PUT", "weight", {"weight": 65536}),
        ("PUT", "weight", {"weight": "1"}),
        ("PUT", "weight", {}),
        ("POST", "drain", {"deadline": 0}),
        ("POST", "drain", {"deadlin": 5}),
        ("POST", "drain", []),
    ],
    ids=str,
)
def test_a_wrong_body(
    api: TestClient, control: FakeControl, method: str, path: str, body: Any
) -> None:
    answer = api.request(method, f"{BACKEND}/{path}", json=body)
    assert answer.status_code == 422
    assert errors(answer)
    assert control.done == []


def test_no_such_backend(api: TestClient) -> None:
    answer = api.post("/services/web/backends/b11/drain")
    assert answer.status_code == 404
    (error,) = errors(answer)
    assert error["near"][0] == "web/b1"
    assert error["message"].startswith(
        "no backend web/b11 in the running configuration; did you mean"
    )


YAML = {"Content-Type": "application/yaml; charset=utf-8"}


def test_apply_and_reload(api: TestClient, control: FakeControl) -> None:
    def wanted(text: bytes) -> dict[str, Any]:
        told = {"changed": True, "dry_run": False, "digest": digest_of(text), "summary": []}
        return {**told, "steps": [STEP], "warnings": []}

    answer = api.post("/apply", content=b"some", headers=YAML)
    assert answer.json() == wanted(b"some")
    assert answer.headers["etag"] == f'"{digest_of(b"some")}"'
    answer = api.post("/apply?force=true&confirm=60", content=b"more", headers=YAML)
    assert answer.json() == wanted(b"more")
    assert api.post("/reload?yes=true").json() == wanted(b"")
    assert control.done == [
        ("apply", b"some", Order(how="apply")),
        ("apply", b"more", Order(how="apply", force=True, yes=True, confirm=60)),
        ("apply", None, Order(how="reload", yes=True)),
    ]


@pytest.mark.parametrize("path", ["/apply", "/reload", f"{BACKEND}/drain", f"{BACKEND}/disable"])
def test_a_loss_must_be_asked_for(api: TestClient, control: FakeControl, path: str) -> None:
    control.loss = ("this takes away 6 of 7 services: a, b, c, d, e and 1 more",)
    given: dict[str, Any] = {"content": b"some", "headers": YAML} if path == "/apply" else {}
    answer = api.post(path, **given)
    assert answer.status_code == 409
    assert errors(answer) == [{"message": control.loss[0]}]
    assert control.done == []
    assert api.post(f"{path}?force=true", **given).status_code == 200
    assert len(control.done) == 1


def test_what_was_accepted(api: TestClient, control: FakeControl) -> None:
    control.accepted = (Entry(7, 1.5, "abc", "root", "apply", ("+ service web: 2 backends",)),)
    assert api.get("/history").json() == {
        "entries": [
            {
                "number": 7,
                "time": 1.5,
                "digest": "abc",
                "by": "root",
                "how": "apply",
                "changes": ["+ service web: 2 backends"],
            }
        ]
    }
    assert api.get("/diff?number=7").text == "--- configuration 7\n+++ running\n"
    assert api.post("/rollback?number=7").json()["number"] == 7
    assert api.post("/confirm").json() == {"confirmed": True, "dry_run": False}
    assert control.done == [("rollback", 7), ("confirm",)]
    control.error = NothingToConfirmError()
    assert api.post("/confirm").status_code == 409


def test_a_document_with_problems(api: TestClient, control: FakeControl) -> None:
    control.outcome = ApplyOutcome(problems=(PlacedProblem("no such interface", "a.b", 3, 7),))
    answer = api.post("/reload")
    assert answer.status_code == 422
    assert errors(answer) == [
        {"message": "no such interface", "path": "a.b", "line": 3, "column": 7}
    ]


def test_the_configuration_and_its_tag(api: TestClient, control: FakeControl) -> None:
    answer = api.get("/configuration")
    assert (answer.text, answer.headers["content-type"]) == (control.text, "application/yaml")
    tag = answer.headers["etag"]
    assert tag == f'"{control.digest}"'
    for path in ("/apply", "/reload", "/confirm", "/rollback"):
        given: dict[str, Any] = {"content": b"some"} if path == "/apply" else {}
        for match, status in (
            (tag, 200),
            (f'"0", {tag}', 200),
            ("*", 200),
            ('"0"', 412),
            (f"W/{tag}", 412),
            (tag.strip('"'), 400),
            ("", 400),
        ):
            done = len(control.done)
            answer = api.post(path, **given, headers={**YAML, "If-Match": match})
            assert answer.status_code == status, (path, match)
            assert len(control.done) == done + (status == 200)
            if status != 200:
                assert errors(answer)
            if status == 412:
                assert answer.headers["etag"] == tag


def test_a_form_of_another_site_applies_nothing(api: TestClient, control: FakeControl) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        answer = api.post("/apply", content=b"some", headers={"Content-Type": kind})
        assert answer.status_code == 415
        assert errors(answer)
    assert control.done == []


def test_a_body_without_end(api: TestClient, control: FakeControl) -> None:
    answer = api.post("/apply", content=b"#" * (16 * 1024 * 1024 + 1), headers=YAML)
    assert answer.status_code == 413
    assert control.done == []


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (BusyError("the daemon ends"), 503),
        (KernelError("nft: refused"), 500),
        (StateError("disk full"), 500),
        (RefusedError(("one", "two")), 422),
        (ZeroDivisionError("secret"), 500),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_of_the_daemon(
    api: TestClient, control: FakeControl, error: Exception, status: int
) -> None:
    control.error = error
    for answer in (
        api.get("/status"),
        api.get("/events"),
        api.post(f"{BACKEND}/drain"),
        api.post("/reload"),
        api.get("http://tula/metrics"),
    ):
        assert answer.status_code == status
        assert "secret" not in errors(answer)[0]["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/status", 405)]
)
def test_what_is_not_there(api: TestClient, method: str, path: str, status: int) -> None:
    answer = api.request(method, path)
    assert answer.status_code == status
    assert errors(answer)


def test_it_describes_itself_without_pages_from_elsewhere(api: TestClient) -> None:
    paths = set(api.get("/openapi.json").json()["paths"])
    assert "/metrics" in paths
    assert "/api/v1/services/{service}/backends/{backend}/drain" in paths
    for page in ("/docs", "/redoc"):
        assert api.get(f"http://tula{page}").status_code == 404
