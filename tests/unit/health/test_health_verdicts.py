"""One verdict of several monitors, and its line."""

from __future__ import annotations

import pytest

from tula.health.check import Outcome
from tula.health.machine import ProbeVerdict, combined, evidence_of, warning_of

T, F, N = True, False, None


@pytest.mark.parametrize(
    ("monitors", "both", "either"),
    [
        ([[T]], T, T),
        ([[F]], F, F),
        ([[N]], N, N),
        ([[T], [T]], T, T),
        ([[T], [F]], F, T),
        ([[T], [N]], N, T),
        ([[F], [N]], F, N),
        ([[F], [F]], F, F),
        ([[T, F]], F, F),  # several VIPs: all have to pass
        ([[T, N]], N, N),
        ([[T, F], [T, T]], F, T),
    ],
)
def test_all_and_any(monitors: list[list[bool | None]], both: bool, either: bool) -> None:
    assert combined(monitors, require_all=True) is both
    assert combined(monitors, require_all=False) is either


def verdict(up: bool | None, evidence: str, warning: str = "") -> ProbeVerdict:
    return ProbeVerdict(up, Outcome(up, evidence, warning=warning), evidence)


def test_a_backend_that_is_down_shows_its_first_failure() -> None:
    monitors = [[verdict(T, "a")], [verdict(F, "b"), verdict(F, "c")]]
    assert evidence_of(False, monitors) == "b (and 1 more)"
    assert evidence_of(True, monitors) == "a"


def test_what_is_open_says_what_was_seen_last() -> None:
    assert evidence_of(None, [[ProbeVerdict(N)], [verdict(T, "a")]]) == "a"
    assert evidence_of(None, [[ProbeVerdict(N)]]) == ""


def test_warnings_once_each() -> None:
    not_asked = verdict(None, "tcp to 10.0.0.1: cannot")
    ends = verdict(T, "a", "the certificate expires on 2030-01-01")
    assert warning_of([[ends, ends], [not_asked]]) == (
        "the certificate expires on 2030-01-01; not checked: tcp to 10.0.0.1: cannot"
    )
