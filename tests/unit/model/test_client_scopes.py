"""Which services remember a client together."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address, ip_network

from support.builders import make_service
from tula.model.client_scopes import client_scopes, scope_of
from tula.model.config import VirtualService
from tula.model.persistence import Persistence


def _service(name: str, scope: str | None, *vips: str) -> VirtualService:
    persistence = None if scope is None else Persistence(60.0, scope=scope)
    return replace(make_service(name, vips or ("10.0.0.100",)), persistence=persistence)


def _groups(*services: VirtualService) -> list[tuple[str, tuple[str, ...]]]:
    return [(scope.name, scope.services) for scope in client_scopes(services)]


def test_a_service_is_for_itself() -> None:
    assert _groups(_service("a", None)) == []
    assert _groups(_service("a", "service"), _service("b", "service")) == [
        ("a", ("a",)),
        ("b", ("b",)),
    ]


def test_a_name_brings_services_together_whatever_other_services_are_called() -> None:
    found = _groups(
        _service("ftp", "service"), _service("a", "ftp"), _service("b", None), _service("c", "ftp")
    )
    assert found == [("ftp", ("ftp",)), ("ftp", ("a", "c"))]


def test_services_of_a_vip_are_together_be_it_through_a_third() -> None:
    one, two, three = "10.0.0.1", "10.0.0.2", "2001:db8::3"
    found = client_scopes(
        (
            _service("a", "vip", one),
            _service("b", "vip", two, three),
            _service("other", "vip", "10.0.0.9"),
            _service("c", "vip", one, two),
            _service("d", "service", one),
        )
    )
    assert [scope.services for scope in found] == [("a", "b", "c"), ("other",), ("d",)]
    assert found[0].versions == (4, 6)
    assert found[1].name == "vip 10.0.0.9"
    assert scope_of(found, "c") is found[0]
    assert scope_of(found, "nobody") is None


def test_a_client_is_what_tells_it_apart() -> None:
    service = replace(make_service("a"), persistence=Persistence(60.0, prefix=24, prefix6=56))
    (scope,) = client_scopes([service])
    assert scope.client(ip_address("192.0.2.77")) == ip_network("192.0.2.0/24")
    assert scope.client(ip_address("2001:db8:0:1ff::1")) == ip_network("2001:db8:0:100::/56")
