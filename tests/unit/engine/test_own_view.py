"""What a backend sees of itself."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address

from support.builders import make_backend, make_config, make_service
from tula.engine.own_view import OwnState, describe_own, find_places
from tula.engine.status import describe_status
from tula.model.config import Config, Forwarding, Tunnel
from tula.model.desired import TunnelEndpoints
from tula.model.health import Override
from tula.plan.backend_status import plan_backend_statuses

ONE, TWO = make_backend(1), make_backend(2)
LOCAL = ip_address("10.0.0.2")


def config() -> Config:
    web = make_service("web", backends=[ONE, TWO])
    plain = make_service("dns", backends=[ONE])
    tunnelled = replace(plain, forwarding=Forwarding.L3, tunnel=Tunnel.VXLAN)
    return make_config(web, tunnelled, make_service("secret", backends=[TWO]))


def state(configuration: Config) -> OwnState:
    overrides = {("web", ONE.name): Override(drain=True), ("secret", TWO.name): Override(weight=3)}
    statuses = plan_backend_statuses(configuration, {}, overrides, 0.0).of
    endpoints = {a: TunnelEndpoints(LOCAL, a, "eth0") for a in (*ONE.addresses, *TWO.addresses)}
    return OwnState(configuration, statuses, overrides, endpoints, {("web", ONE.name): 7}, 0.0)


def test_its_services_and_tunnels_as_status_has_them() -> None:
    configuration = config()
    known = state(configuration)
    own = describe_own(ONE.name, find_places(configuration)[ONE.name], known)
    assert own["name"] == ONE.name
    web, dns = own["services"]
    assert (web["service"], web["state"], web["connections"]) == ("web", "draining", 7)
    assert [each["what"] for each in web["overrides"]] == ["drain"]
    assert (dns["service"], dns["connections"], web["tunnel"]) == ("dns", 0, None)
    told = describe_status(configuration, {}, {}, endpoints=known.endpoints)
    (same,) = [s for s in told["services"] if s["name"] == "dns"]
    assert dns["tunnel"] == same["backends"][0]["tunnel"]
    assert {"kind", "local", "remote", "id", "port", "mac"} == set(dns["tunnel"])
    for key in ("vips", "protocols", "ports", "forwarding"):
        assert dns[key] == same[key]


def test_nothing_of_others() -> None:
    configuration = config()
    places = find_places(configuration)
    text = json.dumps(describe_own(ONE.name, places[ONE.name], state(configuration)))
    assert TWO.name not in text
    assert "secret" not in text
    for address in TWO.addresses:
        assert str(address) not in text
    assert set(places) == {ONE.name, TWO.name}
    assert find_places(replace(configuration, services=())) == {}
