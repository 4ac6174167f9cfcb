"""The OpenAPI document is valid, and the daemon's answers are as it says."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
import requests
import schemathesis
import yaml
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from jsonschema_rs import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from schemathesis.specs.openapi.definitions import OPENAPI_31

from support.api_daemon import ApiDaemon
from support.configurations import render_config
from support.daemon import CONFIG
from support.fake_control import FakeControl
from tula.api.app import make_app
from tula.api.problems import MEDIA_TYPE
from tula.api.status_bodies import StatusBody
from tula.daemon.everywhere.assemble import make_everywhere
from tula.daemon.everywhere.members import LocalMember
from tula.engine.everywhere import Members
from tula.engine.history import digest_of

SOAK = bool(os.environ.get("TULA_SOAK"))
DOCUMENT = make_app(FakeControl()).openapi()
ENDLESS = "/api/v1/events/stream"
OPERATIONS = [
    (method, path) for path, item in DOCUMENT["paths"].items() for method in item if path != ENDLESS
]
LOCAL, NOBODY, UNKNOWN = "local", "nobody", "unknown"
CALLERS = [LOCAL, NOBODY, UNKNOWN, "read", "operate", "configure", "peer", "backend:b0"]
"""A user of the machine; without a token and with one that does not count; and each scope. All but
the first come through the gateway."""
EACH = 40 if SOAK else 1
"""Cases for each operation, each caller, and each of valid and invalid requests: beside some 350
that a person would ask, 300; in the soak, 12,000."""
MODES = [GenerationMode.POSITIVE, GenerationMode.NEGATIVE]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


def test_the_document_is_openapi_3_1() -> None:
    assert DOCUMENT["openapi"].startswith("3.1.")
    assert [error.message for error in Draft202012Validator(OPENAPI_31).iter_errors(DOCUMENT)] == []


@pytest.mark.parametrize(("method", "path"), [*OPERATIONS, ("get", ENDLESS)])
def test_every_answer_is_declared(method: str, path: str) -> None:
    responses = DOCUMENT["paths"][path][method]["responses"]
    (media,) = responses["200"]["content"].values()
    assert media["schema"], "a success of any shape"
    assert set(responses) > {"400", "401", "403", "408", "413", "429", "431", "500", "502", "503"}
    for status, response in responses.items():
        assert response["description"]
        if status != "200":
            assert set(response["content"]) == {MEDIA_TYPE}
            schema = response["content"][MEDIA_TYPE]["schema"]
            assert schema == {"$ref": "#/components/schemas/ProblemBody"}
    assert "WWW-Authenticate" in responses["401"]["headers"]
    assert "Retry-After" in responses["429"]["headers"]


# ── Against a daemon on the fake kernel ──────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiDaemon]:
    made = ApiDaemon(tmp_path_factory.mktemp("api"), TEXTS[0])
    everywhere = make_everywhere(
        *(made.control, made.loop, made.daemon.writer, made.daemon.store, made.daemon.events),
        *(made.watch, lambda _: "lb1"),
    )

    async def alone(order: Any, **_: Any) -> Members:
        """All balancers, which are this one."""
        member = LocalMember(everywhere.participant, order, everywhere._carry)
        return Members("lb1", {"lb1": member})

    everywhere._members = alone  # type: ignore[method-assign]
    made.control.everywhere = everywhere
    with made.served():
        yield made


@pytest.fixture(scope="module")
def tokens(daemon: ApiDaemon) -> dict[str, dict[str, str]]:
    """What each caller says of itself."""
    known = {scope: daemon.token(scope) for scope in CALLERS[3:]}
    found = {scope: {"Authorization": f"Bearer {token}"} for scope, token in known.items()}
    return {LOCAL: {}, NOBODY: {}, UNKNOWN: {"Authorization": "Bearer tula_x"}, **found}


TEXTS = [
    render_config(CONFIG).replace("  source: file\n", "  source: api\n"),
    "interfaces: [eth0]\napi: {source: api}\nservices: {}\n",
    "interfaces: [eth7]\napi: {source: api}\nservices: {}\n",
    "interfaces: [eth0]\nservices: {}\n",
]


SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
SESSION = requests.Session()
NAMES = {"service": "web", "backend": "b0", "name": "b0", "change": "0123456789abcdef"}
_PEER = {"coordinator": "lb2", "how": "apply everywhere", "by": "ann@lb2", "yes": True}
_CHANGE = "/api/v1/everywhere/changes/{change}"
QUERIES: dict[str, list[dict[str, Any]]] = {
    f"{_CHANGE}/prepare": [{**_PEER, "seconds": 60}],
    f"{_CHANGE}/hold": [{"coordinator": "lb2", "seconds": 60}],
    f"{_CHANGE}/confirm": [{**_PEER, "digest": "0" * 64}],
    f"{_CHANGE}/adopt": [_PEER],
    f"{_CHANGE}/abort": [{"coordinator": "lb2", "why": "one refused"}],
    "/api/v1/everywhere/rollback": [{}, {"number": 1}, {"dry_run": True}],
    "/api/v1/everywhere/confirm": [{"dry_run": True}, {}],
    "/api/v1/trace": [{"vip": "10.0.0.100", "port": 80, "client": "10.0.0.9", "client_port": 1}],
    "/api/v1/diff": [{}, {"number": 1}, {"number": 10**6}],
    "/api/v1/rollback": [{}, {"number": 1}, {"dry_run": True}],
}


def sensible(operation: Any) -> Iterator[schemathesis.Case]:
    """What a person would ask."""
    names = {each.name: NAMES[each.name] for each in operation.path_parameters}
    takes_text = operation.path.endswith(("/apply", "/plan", "/prepare", "/adopt"))
    matches = ("*", '"0"') if any(h.name == "If-Match" for h in operation.headers) else ("*",)
    if operation.path.endswith("/adopt"):
        matches = (f'"{digest_of(TEXTS[0].encode())}"', *matches)
    usual: list[dict[str, Any]] = [{"force": True}, {"dry_run": True}]
    for text in TEXTS if takes_text else [""]:
        for query in QUERIES.get(operation.path, usual):
            for match in matches:
                body: dict[str, Any] = {}
                if text:
                    body = {"body": yaml.safe_load(text), "media_type": "application/yaml"}
                elif operation.path.endswith("/weight"):
                    body = {"body": {"weight": 7}, "media_type": "application/json"}
                headers = {"If-Match": match}
                yield operation.Case(path_parameters=names, query=query, headers=headers, **body)


def prepare(daemon: ApiDaemon, path: str) -> None:
    """Has the daemon be in a state in which there is something to do."""
    reload, confirm = path.endswith("/reload"), path == "/api/v1/confirm"
    with daemon.client() as client:
        for text in (TEXTS[1], TEXTS[3] if reload else TEXTS[0]):
            query = {"force": "true", **({"confirm": "600"} if confirm else {})}
            kind = {"Content-Type": "application/yaml"}
            assert client.post("/apply", content=text, headers=kind, params=query).is_success
        if path == "/api/v1/everywhere/confirm":
            waits = {"confirm": "600"}
            done = client.post("/everywhere/apply", content=TEXTS[0], headers=kind, params=waits)
            assert done.is_success, done.text
        elif path.startswith(_CHANGE) and not path.endswith(("/prepare", "/adopt")):
            given: Any = {**_PEER, "seconds": "600"}
            verb = path.removeprefix("/api/v1").format(**NAMES).rpartition("/")[0] + "/prepare"
            client.post(verb, content=TEXTS[0], headers=kind | {"If-Match": "*"}, params=given)


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_answers_are_as_declared(
    daemon: ApiDaemon, tokens: dict[str, dict[str, str]], method: str, path: str
) -> None:
    operation, seen = SCHEMA[path][method], Counter[int]()

    def ask(caller: str, case: schemathesis.Case) -> None:
        url = daemon.url if caller == LOCAL else daemon.network_url
        case.headers.pop("Authorization", None)
        answer = case.call(base_url=url, headers=tokens[caller], session=SESSION, timeout=60)
        if caller in (NOBODY, UNKNOWN):
            assert answer.status_code in (400, 401, 429)
        elif answer.status_code == 429 and answer.request.headers.get("Authorization"):
            # More than the gateway lets through from one address. Without the header, which is
            # what some of the wrong cases leave out, it is the answer.
            time.sleep(int(answer.headers["retry-after"][0]))
            ask(caller, case)
            return
        seen[answer.status_code] += 1
        case.validate_response(answer, checks=CHECKS)

    for caller in CALLERS:
        prepare(daemon, path)
        for case in sensible(operation) if caller not in (NOBODY, UNKNOWN) else ():
            ask(caller, case)
        for mode in MODES:
            fuzz(operation.as_strategy(generation_mode=mode), partial(ask, caller))
    print(f"{method} {path}: {dict(sorted(seen.items()))}")
    # Who asks is told to every token.
    assert {200} | ({403} if path != "/api/v1/caller" else set()) <= set(seen)
    assert seen[401] + seen[429] > 1  # wrong tokens are limited by address


def fuzz(cases: Any, ask: Callable[[schemathesis.Case], None]) -> None:
    """Asks with what the document allows, or with what it does not."""

    @given(case=cases)
    @settings(
        max_examples=EACH,
        deadline=None,
        database=None,
        derandomize=not SOAK,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    def check(case: schemathesis.Case) -> None:
        ask(case)

    with suppress(Unsatisfiable):  # nothing is invalid where there are no parameters
        check()


def test_the_status_has_what_is_declared(daemon: ApiDaemon) -> None:
    with daemon.client() as client:
        status = client.get("/status").json()
    assert StatusBody.model_validate(status).model_dump(exclude_unset=True) == status
