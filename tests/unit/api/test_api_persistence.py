"""What the API answers of persistent clients."""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_address

import pytest
from starlette.testclient import TestClient

from support.fake_control import FakeControl
from tula.api.app import PREFIX, make_app


@pytest.fixture
def control() -> FakeControl:
    held = {ip_address("192.0.2.7"): "10.0.0.11", ip_address("2001:db8::7"): "10.0.0.12"}
    return FakeControl(held=held)


@pytest.fixture
def api(control: FakeControl) -> Iterator[TestClient]:
    with TestClient(make_app(control), base_url=f"http://tula{PREFIX}") as client:
        yield client


def test_clients_are_listed(api: TestClient) -> None:
    answer = api.get("/persistence").json()
    assert answer == {
        "clients": [
            {
                "scope": "web",
                "services": ["web"],
                "client": client,
                "backend": backend,
                "address": address,
                "seconds": 250.0,
            }
            for client, backend, address in (
                ("192.0.2.7/32", "b1", "10.0.0.11"),
                ("2001:db8::7/128", "b2", "10.0.0.12"),
            )
        ],
        "complete": True,
    }
    part = api.get("/persistence", params={"limit": 1}).json()
    assert (len(part["clients"]), part["complete"]) == (1, False)
    one = api.get("/persistence", params={"client": "2001:db8::7", "service": "web"}).json()
    assert [entry["backend"] for entry in one["clients"]] == ["b2"]


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({"service": "none"}, 404),
        ({"client": "10.0.0.0/8"}, 422),
        ({"limit": 0}, 422),
        ({"limit": 10**6}, 422),
    ],
)
def test_what_is_asked_wrong(api: TestClient, query: dict[str, object], status: int) -> None:
    assert api.get("/persistence", params=query).status_code == status  # type: ignore[arg-type]


def test_a_client_is_forgotten(api: TestClient, control: FakeControl) -> None:
    client = {"client": "192.0.2.7"}
    expected = {"client": "192.0.2.7", "services": ["web"], "entries": 1}
    dry = api.delete("/persistence", params={**client, "dry_run": "true"}).json()
    assert dry == {**expected, "dry_run": True}
    assert control.done == []
    assert api.delete("/persistence", params=client).json() == {**expected, "dry_run": False}
    assert control.done == [("forget", None, ip_address("192.0.2.7"))]
    assert api.delete("/persistence", params=client).json()["entries"] == 0


def test_all_are_forgotten_by_who_means_it(api: TestClient, control: FakeControl) -> None:
    refused = api.delete("/persistence")
    assert refused.status_code == 409
    assert refused.json()["type"].endswith(":loss")
    assert refused.json()["errors"][0]["message"].startswith("that forgets every client of web")
    assert control.done == []
    done = api.delete("/persistence", params={"force": "true"}).json()
    assert done["entries"] == 2
