"""Who may do what: each route has a scope, and only the gateway's word names another caller."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from fastapi.testclient import TestClient

from support.fake_control import FakeControl
from tula.api.app import make_app
from tula.api.callers import needed_scope
from tula.engine.callers import Caller, GatewayProcesses, Grant, Scope, parse_grant
from tula.users import user_name

GATEWAY = 4711
BACKEND = "/api/v1/services/web/backends/b1"
ANY = {"Content-Type": "application/yaml", "If-Match": "*"}


def routes(app: FastAPI) -> Iterator[APIRoute]:
    """All that can be asked, the description of the API too."""
    pending = list(app.routes)
    while pending:
        route = pending.pop()
        inner = getattr(route, "routes", None) or getattr(
            getattr(route, "original_router", None), "routes", None
        )
        if inner:
            pending += inner
        else:
            assert isinstance(route, APIRoute), f"{route} cannot say which scope it takes"
            yield route


def declared(route: APIRoute) -> list[Scope]:
    """The scopes that a route's dependencies take."""
    pending, found = [route.dependant], []
    while pending:
        dependant = pending.pop()
        scope = needed_scope(dependant.call)
        found += [] if scope is None else [scope]
        pending += dependant.dependencies
    return found


def test_every_route_takes_one_scope() -> None:
    app = make_app(FakeControl())
    found = {(route.path, *route.methods): declared(route) for route in routes(app)}
    assert len(found) > 15
    assert {path for path, scopes in found.items() if len(scopes) != 1} == set()
    sees = {path for path, scopes in found.items() if scopes == [Scope.READ]}
    # Who asks is told to whoever has a token; how this balancer stands to the others, to those.
    more = {
        *{("/caller", "GET"), ("/peer", "GET")},
        ("/everywhere/changes/{change}", "GET"),
    }
    assert {path for path in found if "GET" in path} - sees == more
    changing = {path for path in found if "GET" not in path} - sees
    assert {path[0].rpartition("/")[2] for path in sees - changing if "GET" not in path} == {"plan"}


def test_openapi_names_the_scopes() -> None:
    document = make_app(FakeControl()).openapi()
    assert document["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    for path in document["paths"].values():
        for operation in path.values():
            (needed,) = operation["security"]
            assert set(needed) == {"token"}
            assert needed["token"]
    assert document["paths"][f"{BACKEND_PATH}/drain"]["post"]["security"] == [
        {"token": ["operate"]}
    ]


def test_everybody_is_asked_for_a_token_before_anything_else() -> None:
    """Whether this is one of several balancers is told to nobody who may not know."""
    for route in routes(make_app(FakeControl())):
        if "/everywhere" in route.path:
            first = route.dependant.dependencies[0]
            assert needed_scope(first.call) is not None, route.path


BACKEND_PATH = "/api/v1/services/{service}/backends/{backend}"


@pytest.fixture
def control() -> FakeControl:
    return FakeControl()


def client(
    control: FakeControl, scope: str, pid: int = GATEWAY, uid: int | None = None, name: str = "tok"
) -> TestClient:
    """A client for whom the process ``pid`` speaks."""
    user = os.geteuid() if uid is None else uid
    return TestClient(
        make_app(control, GatewayProcesses({GATEWAY})),
        base_url="http://tula",
        client=(str(user), pid),
        raise_server_exceptions=False,
        headers={"Tula-Caller": name, "Tula-Scope": scope, "Tula-From": "192.0.2.1"},
    )


CHANGES: list[tuple[str, str, str, dict[str, Any]]] = [
    *(("operate", "POST", f"{BACKEND}/{v}", {}) for v in ("drain", "undrain", "disable", "enable")),
    ("operate", "PUT", f"{BACKEND}/weight", {"json": {"weight": 7}}),
    ("configure", "POST", "/api/v1/apply", {"content": b"some", "headers": ANY}),
    *(("configure", "POST", f"/api/v1/{verb}", {}) for verb in ("reload", "confirm", "rollback")),
]


@pytest.mark.parametrize(("needed", "method", "path", "given"), CHANGES, ids=str)
def test_a_change_takes_its_scope(
    control: FakeControl, needed: str, method: str, path: str, given: dict[str, Any]
) -> None:
    scopes = ["backend:b1", "read", "operate", "configure", "peer"]
    for scope in scopes[: scopes.index(needed)]:
        answer = client(control, scope).request(method, path, **given)
        assert answer.status_code == 403, scope
        assert needed in answer.json()["errors"][0]["message"]
    assert control.done == []
    for scope in scopes[scopes.index(needed) :]:
        answer = client(control, scope).request(method, path, **given)
        assert answer.status_code < 300, scope
        assert control.by == "token:tok"
    assert len(control.done) == len(scopes) - scopes.index(needed)


def test_a_backend_sees_itself_and_nothing_of_others(control: FakeControl) -> None:
    mine = client(control, "backend:b1").get("/api/v1/backends/b1")
    assert mine.status_code == 200
    assert mine.json()["name"] == "b1"
    assert [place["service"] for place in mine.json()["services"]] == ["web"]
    assert "b2" not in mine.text
    # Whether there is another of that name makes no difference.
    others = [client(control, "backend:b1").get(f"/api/v1/backends/{n}") for n in ("b2", "none")]
    assert {answer.status_code for answer in others} == {403}
    assert others[0].text == others[1].text
    assert client(control, "backend:none").get("/api/v1/backends/none").status_code == 404
    gone = client(control, "backend:b").get("/api/v1/backends/b")
    assert (gone.status_code, "b1" in gone.text) == (404, False), "no names that are like it"
    for name, status in (("b1", 200), ("b2", 200), ("none", 404)):
        for scope in ("read", "operate", "configure", "peer"):
            assert client(control, scope).get(f"/api/v1/backends/{name}").status_code == status


def test_a_backend_may_ask_nothing_else(control: FakeControl) -> None:
    backend = client(control, "backend:b1")
    asked = 0
    for path, operations in make_app(control).openapi()["paths"].items():
        given = {"service": "web", "backend": "b1", "name": "b2", "change": "0" * 16}
        for method in operations:
            status = 200 if path == "/api/v1/caller" else 403
            assert backend.request(method, path.format(**given)).status_code == status, path
            asked += 1
    assert asked > 15
    assert control.done == []


SEEN = ("status", "health", "events", "history", "diff", "openapi.json", "services/web/backends/b1")


def test_what_is_seen_takes_read(control: FakeControl) -> None:
    for path in (*(f"/api/v1/{path}" for path in SEEN), "/metrics"):
        assert client(control, "read").get(path).status_code == 200, path
        refused = client(control, "backend:b1").get(path)
        assert refused.status_code == 403, path


@pytest.mark.parametrize("scope", ["", "local", "root", "backend", "backend:", "read:b1", "READ"])
def test_a_scope_that_no_token_has_may_nothing(control: FakeControl, scope: str) -> None:
    assert client(control, scope).get("/api/v1/status").status_code == 403
    assert client(control, scope).post(f"{BACKEND}/drain").status_code == 403
    assert client(control, "peer", name="").post(f"{BACKEND}/drain").status_code == 403
    assert control.done == []


def test_others_on_the_socket_are_who_they_are_whatever_they_say(control: FakeControl) -> None:
    for pid, uid in ((GATEWAY + 1, os.geteuid()), (GATEWAY, 54321)):
        assert client(control, "read", pid, uid).post(f"{BACKEND}/enable").status_code == 200
        assert control.by == user_name(uid)


def test_scopes_as_users_write_them() -> None:
    for text in ("read", "operate", "configure", "peer", "backend:cache-1"):
        assert str(parse_grant(text)) == text
    assert parse_grant("backend:b1") == Grant(Scope.BACKEND, "b1")
    assert Caller("grafana", Scope.READ).who == "token:grafana"
    assert Caller("root", Scope.LOCAL).who == "root"
    assert not Scope.BACKEND.covers(Scope.READ)
    assert Scope.LOCAL.covers(Scope.PEER)
