"""Answers of a daemon as large as somebody's, to be looked at on a terminal of any width."""

from __future__ import annotations

from typing import Any

from tula.doctor.run import Report, Roles
from tula.engine.summary import summarize
from tula.model.finding import Finding, Severity

DUAL = ["198.51.100.10", "2001:db8:0:1::100:10"]


def small_status() -> dict[str, Any]:
    """Three services: one with a backend that drains and one that is down, one with all drained,
    one that nothing checks."""
    web = make_service(
        "web", ["up", "draining", "down"], vips=DUAL, ports=["80", "443", "8000-8010"]
    )
    web["backends"][1] |= {"connections": 12, "reason": "drained by the operator"}
    web["backends"][2]["reason"] = (
        "http to 198.51.100.10 port 80: status 503 Service Unavailable; the server answers on its "
        "own address, and not on the VIP"
    )
    web["backends"][0]["warning"] = "certificate expires in 6 days"
    dns = make_service("dns", ["draining", "draining"], protocols=["udp"], ports=["53"])
    db = make_service("db", ["unknown", "unknown"], ports=["5432"])
    for backend in db["backends"]:
        backend["tunnel"] = {"kind": "gue"}
    return make_status([web, dns, db])


def large_status(services: int = 500, backends: int = 10, failing: int = 48) -> dict[str, Any]:
    """So many services, of which some have all backends down, some one, and others none."""
    found = []
    for number in range(services):
        states = ["up"] * backends
        if number < failing:
            states = ["down"] * backends
        elif number % 50 == 0:
            states[3] = "down"
        name = f"customer-{number:03}-web"
        made = make_service(name, states, vips=[f"198.51.{number // 250}.{number % 250 + 1}"])
        for backend in made["backends"]:
            if backend["state"] == "down":
                backend["reason"] = f"tcp to {made['vips'][0]} port 80: no answer within 1 s"
        found.append(made)
    problems = [
        f"services.customer-{number:03}-web.backends.cache-1: no route to 10.20.{number}.1; "
        "is the interface down? Add a route, correct the address, or use forwarding: l3, which "
        "reaches backends behind routers, too; the other backends of this service get its share "
        "of new connections as long as it is so"
        for number in range(failing)
    ]
    return make_status(found, problems)


def make_status(
    services: list[dict[str, Any]], problems: list[str] | None = None
) -> dict[str, Any]:
    """A whole answer."""
    answer: dict[str, Any] = {
        "services": services,
        "counters": {"no_backend": {"packets": 7, "bytes": 420}},
        "connections": {"tcp4": {"entries": 81234, "size": 262144}},
        "kernel": {
            "in_sync": True,
            "differences": [],
            "forwards": True,
            "interfaces": {"eth0": "up"},
        },
        "daemon": {
            "started": 1800000000.0,
            "configuration": {"path": "/etc/tula/tula.yaml", "refused": None},
            "last_cycle": None,
        },
        "problems": problems or [],
    }
    return answer | {"summary": {"text": summarize(answer).text}}


def make_service(
    name: str,
    states: list[str],
    *,
    vips: list[str] | None = None,
    protocols: list[str] | None = None,
    ports: list[str] | None = None,
) -> dict[str, Any]:
    """A service with a backend for each of the states."""
    rates = {"packets": 123456.0, "bytes": 87654321.0, "new_flows": None}
    return {
        "name": name,
        "vips": vips or ["198.51.100.20"],
        "protocols": protocols or ["tcp"],
        "ports": ports or ["80"],
        "checked": "unknown" not in states,
        "panic": False,
        "packets": 9876543210,
        "bytes": 7654321098765,
        "rates": rates,
        "backends": [
            {
                "name": f"cache-{number}",
                "address": f"10.0.0.{number + 10}",
                "weight": 100,
                "effective_weight": 100 if state in ("up", "unknown") else 0,
                "state": state,
                "reason": "",
                "warning": "",
                "connections": None,
                "packets": 1234567,
                "bytes": 987654321,
                "rates": {**rates, "packets": 0.4},
                "tunnel": None,
            }
            for number, state in enumerate(states, start=1)
        ],
    }


def small_report() -> Report:
    """What the doctor may find of three services: one of each severity."""
    missing = Finding(
        id="vip-missing",
        severity=Severity.ERROR,
        where="cache-3",
        evidence="cache-3 answers on its own address 10.0.0.13 and not on the VIP 198.51.100.10, "
        "tcp port 80: nothing came back within 1.2 s, though the path was tested",
        fix="add the VIP to a device of the backend that does not answer ARP",
        certain=False,
        on="cache-3",
        commands=("ip address add 198.51.100.10/32 dev lo",),
    )
    filtered = Finding("rp-filter", Severity.WARNING, "eth0", "rp_filter is 1", "set it to 2")
    untested = Finding("no-source-address", Severity.NOTE, "here", "not tested", "give it one")
    tested = ("interfaces", "routes to backends", "the kernel's state against the configuration")
    return Report(Roles(balancer=True), (missing, filtered, untested), tested)


def large_report(failing: int = 48) -> Report:
    """The same problem of many backends."""
    found = [
        Finding(
            id="vip-missing",
            severity=Severity.ERROR,
            where=f"cache-{number}",
            evidence=f"cache-{number} answers on its own address and not on the VIP; {'so ' * 80}",
            fix="add the VIP",
            on=f"cache-{number}",
            commands=("ip address add 198.51.100.10/32 dev lo",),
        )
        for number in range(failing)
    ]
    return Report(Roles(balancer=True), tuple(found), ("interfaces",))


def make_events(count: int) -> list[dict[str, Any]]:
    """So many events, as the API gives them."""
    kinds = ["backend-down", "backend-up", "configuration-accepted", "kernel-repaired"]
    return [
        {
            "number": number,
            "time": 1800000000.0 + number,
            "kind": kinds[number % 4],
            "subject": f"customer-{number:03}-web/cache-1" if number % 4 < 2 else "",
            "message": "was up, is down",
            "evidence": "http to 198.51.100.10 port 80: status 503 Service Unavailable; the "
            "server answers on its own address, and not on the VIP",
        }
        for number in range(1, count + 1)
    ]
