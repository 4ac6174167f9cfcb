"""The fault's name, by a table of what the other ways said."""

from __future__ import annotations

import pytest

from tula.health.faults import Echoes, name_fault
from tula.health.outcome import Fault, Outcome

PASSED = Outcome(True, "ok")
REFUSED = Outcome(False, "tcp to 10.0.0.1 port 80: connection refused", fault=Fault.REFUSED)
SILENT = Outcome(False, "no answer within 1 s", fault=Fault.SILENT)
UNREACHABLE = Outcome(False, "no route to host", fault=Fault.UNREACHABLE)
WRONG = Outcome(False, "http to 10.0.0.1 port 80: status 503", fault=Fault.ANSWER)
NOT_ASKED = Outcome(None, "cannot open a socket")


@pytest.mark.parametrize(
    ("failed", "direct", "echo_vip", "echo_direct", "named"),
    [
        (SILENT, PASSED, SILENT, PASSED, "serves, but does not accept the VIP; look at"),
        (SILENT, PASSED, None, None, "serves, but does not accept the VIP; look at"),
        (SILENT, PASSED, NOT_ASKED, NOT_ASKED, "serves, but does not accept the VIP; look at"),
        (SILENT, PASSED, PASSED, PASSED, "accepts the VIP, but its port 80 is filtered"),
        (SILENT, SILENT, SILENT, SILENT, "the host does not answer at all"),
        (UNREACHABLE, UNREACHABLE, SILENT, UNREACHABLE, "the host does not answer at all"),
        (SILENT, SILENT, NOT_ASKED, NOT_ASKED, "does not answer by its own address either"),
        (SILENT, SILENT, SILENT, PASSED, "the host answers echo, but does not serve"),
        (SILENT, SILENT, PASSED, PASSED, "accepts the VIP, but its port 80 does not answer"),
        (SILENT, REFUSED, SILENT, PASSED, "nothing listens on its port 80"),
        (SILENT, WRONG, SILENT, PASSED, "does not serve by its own address either (status 503)"),
        (SILENT, NOT_ASKED, SILENT, SILENT, ""),
        (REFUSED, PASSED, None, None, "port 80, or a firewall rejects what is for it"),
        (REFUSED, REFUSED, None, None, "nothing listens on the VIP's port 80"),
        (WRONG, PASSED, None, None, "the server answers otherwise for the VIP"),
        (WRONG, WRONG, None, None, ""),
    ],
)
def test_the_fault_has_a_name(
    failed: Outcome,
    direct: Outcome,
    echo_vip: Outcome | None,
    echo_direct: Outcome | None,
    named: str,
) -> None:
    found = name_fault(80, failed, direct, Echoes(echo_vip, echo_direct))
    assert named in found
    assert bool(named) is bool(found)


NO_END = Outcome(False, "icmp to 10.0.0.1: 'port unreachable'", fault=Fault.REFUSED)


@pytest.mark.parametrize(
    ("forwarded", "version", "named"),
    [
        (PASSED, 4, "what is forwarded to it arrives, so the VIP is not on it"),
        (
            NO_END,
            4,
            "its tunnel does not end there: what is forwarded to it is answered by 'port un",
        ),
        (UNREACHABLE, 4, "what is forwarded to it is rejected: no route to host"),
        (SILENT, 4, "dropped without a word; look at: rp_filter on it, does its tunnel end there"),
        (SILENT, 6, "dropped without a word; look at: does its tunnel end there"),
        (NOT_ASKED, 6, "look at: is the VIP on it, does its tunnel end there"),
        (None, 4, "look at: is the VIP on it, rp_filter on it"),
    ],
)
def test_what_is_forwarded_tells_why_the_vip_is_not_accepted(
    forwarded: Outcome | None, version: int, named: str
) -> None:
    found = name_fault(80, SILENT, PASSED, Echoes(SILENT, PASSED, forwarded), version)
    assert found.startswith("the backend serves, but does not accept the VIP; ")
    assert named in found
