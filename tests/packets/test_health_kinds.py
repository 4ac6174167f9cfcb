"""Every kind of check, by way of the VIP and direct, sees an application that answers wrongly.

::

         lb                 backend-1, -2
         │                      │   (VIPs on lo)
    ═════╧══════════════════════╧═════  lan

One daemon has a service for each kind, way and IP version; what happens to backend-1 must be seen
by the four of its kind, and by nobody else.
"""

from __future__ import annotations

from collections.abc import Iterator

import dns.rcode
import pytest

from support.applications import Answer, http, line, record
from support.health_kinds import HEALTHY, Applications, running_applications

pytestmark = pytest.mark.kernel


@pytest.fixture(scope="module")
def applications(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Applications]:
    with running_applications(tmp_path_factory.mktemp("kinds")) as made:
        yield made


@pytest.mark.parametrize(
    ("kind", "answer", "seen"),
    [
        ("tcp", line("sorry"), "answered sorry.*, wanted 'pong'"),
        ("http", http(503, "ready"), "status 503, wanted 200"),
        ("http", http(200, "wait"), "status 200, but the body does not hold 'ready'"),
        ("https", http(404, "ready"), "status 404, wanted 200"),
        ("https", http(200, "wait"), "status 200, but the body does not hold 'ready'"),
        ("udp", line("sorry"), "answered sorry.*, wanted 'pong'"),
        ("dns", record(dns.rcode.NXDOMAIN, ""), "answered NXDOMAIN, wanted NOERROR"),
        ("dns", record(text=""), "answered without a record of type A"),
        ("script", line("sorry"), "exit status 1: sorry"),
    ],
    ids=lambda value: None if isinstance(value, str) else "answers",
)
def test_a_wrong_answer_is_down_and_a_right_one_up_again(
    applications: Applications, kind: str, answer: Answer, seen: str
) -> None:
    with applications.answering(kind, answer):
        applications.wait_for_down((kind, "dsr", seen), (kind, "direct", seen))
    applications.wait_for_down()


@pytest.mark.parametrize("kind", HEALTHY)
def test_a_service_that_is_stopped_refuses(applications: Applications, kind: str) -> None:
    with applications.stopped(kind):
        if kind == "script":
            refused = "exit status 1: .*Connection refused"
            applications.wait_for_down((kind, "dsr", refused), (kind, "direct", refused))
        else:
            named = "connection refused; nothing listens on the VIP's port [0-9]+"
            direct = "connection refused"
            applications.wait_for_down((kind, "dsr", named), (kind, "direct", direct))
    applications.wait_for_down()


def test_a_host_that_is_silent_to_echoes(applications: Applications) -> None:
    switches = ("net/ipv4/icmp_echo_ignore_all", "net/ipv6/icmp/echo_ignore_all")
    for name in switches:
        applications.first.write_sysctl(name, 1)
    silent = r"no echo reply within \d s"
    named = f"{silent}; the host does not answer pings to its own address either"
    applications.wait_for_down(("icmp", "dsr", named), ("icmp", "direct", silent))
    for name in switches:
        applications.first.write_sysctl(name, 0)
    applications.wait_for_down()


@pytest.mark.parametrize("kind", ["tcp", "http", "https", "udp"])
def test_an_answer_that_is_wrong_at_the_vip_alone(applications: Applications, kind: str) -> None:
    """What clients get, and a check of the backend's own address does not see."""
    wrong = {"http": http(500, "no such host"), "https": http(500, "no such host")}
    right, bad = HEALTHY[kind], wrong.get(kind, line("sorry"))
    vips = applications.network.vips

    def answer(asked: bytes, address: str) -> bytes:
        return (bad if address in vips else right)(asked, address)

    seen = ".*; on its own address the check passes: the server answers differently for the VIP"
    with applications.answering(kind, answer):
        applications.wait_for_down((kind, "dsr", seen))
    applications.wait_for_down()


def test_a_certificate_that_ends_soon_is_warned_of(applications: Applications) -> None:
    found = applications.daemon.backends()
    warned = {name for name, backend in found.items() if backend["warning"]}
    assert warned == {name for name in found if name.startswith("https-")}
    assert "the certificate expires on" in found["https-dsr-6/backend-2"]["warning"]
