"""Why a backend is down, by a table of what other probes found."""

from __future__ import annotations

import pytest

from tula.health.check import FailureKind, Outcome
from tula.health.diagnosis import Echoes, explain

PASSED = Outcome(True, "ok")
REFUSED = Outcome(False, "tcp to 10.0.0.1 port 80: connection refused", failure=FailureKind.REFUSED)
SILENT = Outcome(False, "no answer within 1 s", failure=FailureKind.SILENT)
UNREACHABLE = Outcome(False, "no route to host", failure=FailureKind.UNREACHABLE)
WRONG = Outcome(False, "http to 10.0.0.1 port 80: status 503", failure=FailureKind.ANSWER)
NOT_ASKED = Outcome(None, "cannot open a socket")


@pytest.mark.parametrize(
    ("failed", "direct", "echo_vip", "echo_direct", "named"),
    [
        (SILENT, PASSED, SILENT, PASSED, "serves, but does not accept the VIP; check that"),
        (SILENT, PASSED, None, None, "serves, but does not accept the VIP; check that"),
        (SILENT, PASSED, NOT_ASKED, NOT_ASKED, "serves, but does not accept the VIP; check that"),
        (SILENT, PASSED, PASSED, PASSED, "accepts the VIP, but its port 80 is filtered"),
        (SILENT, SILENT, SILENT, SILENT, "the host does not answer at all"),
        (UNREACHABLE, UNREACHABLE, SILENT, UNREACHABLE, "the host does not answer at all"),
        (SILENT, SILENT, NOT_ASKED, NOT_ASKED, "does not answer on its own address either"),
        (SILENT, SILENT, SILENT, PASSED, "the host answers pings, but does not serve"),
        (
            SILENT,
            SILENT,
            PASSED,
            PASSED,
            "but its port 80 answers on neither address",
        ),
        (SILENT, REFUSED, SILENT, PASSED, "nothing listens on port 80 of its own"),
        (SILENT, WRONG, SILENT, PASSED, "does not serve on its own address either (status 503)"),
        (REFUSED, PASSED, None, None, "port 80, or a firewall rejects packets to it"),
        (REFUSED, REFUSED, None, None, "nothing listens on the VIP's port 80"),
        (WRONG, PASSED, None, None, "the server answers differently for the VIP"),
        (WRONG, WRONG, None, None, ""),
    ],
)
def test_the_reason_names_what_failed(
    failed: Outcome,
    direct: Outcome,
    echo_vip: Outcome | None,
    echo_direct: Outcome | None,
    named: str,
) -> None:
    found = explain(80, failed, direct, Echoes(echo_vip, echo_direct))
    assert found is not None
    assert named in found
    assert bool(named) is bool(found)


def test_who_could_not_be_asked_tells_nothing() -> None:
    assert explain(80, SILENT, NOT_ASKED, Echoes(SILENT, SILENT)) is None


NO_END = Outcome(False, "icmp to 10.0.0.1: 'port unreachable'", failure=FailureKind.REFUSED)


@pytest.mark.parametrize(
    ("forwarded", "version", "named"),
    [
        (PASSED, 4, "forwarded packets arrive, so the VIP is not configured on it"),
        (
            NO_END,
            4,
            "it has no tunnel endpoint: forwarded packets are answered with 'port un",
        ),
        (UNREACHABLE, 4, "forwarded packets are rejected: no route to host"),
        (SILENT, 4, "dropped silently; check its rp_filter, its tunnel endpoint"),
        (SILENT, 6, "dropped silently; check its tunnel endpoint"),
        (NOT_ASKED, 6, "check that it has the VIP; also check its tunnel endpoint"),
        (None, 4, "check that it has the VIP; also check its rp_filter"),
    ],
)
def test_what_is_forwarded_tells_why_the_vip_is_not_accepted(
    forwarded: Outcome | None, version: int, named: str
) -> None:
    found = explain(80, SILENT, PASSED, Echoes(SILENT, PASSED, forwarded), version)
    assert found is not None
    assert found.startswith("the backend serves, but does not accept the VIP; ")
    assert named in found
