"""Receivers of notifications that take nothing."""

from __future__ import annotations

from support.builders import make_config
from tula.doctor.notifications import check_notifications
from tula.doctor.observation import Observation
from tula.engine.notify_facts import ReceiverFacts


def test_who_takes_nothing_for_long_is_found() -> None:
    fine = ReceiverFacts("exec a", "exec", sent=3)
    just = ReceiverFacts("email b", "email", error="no", failing_since=100.0, last_failure=130.0)
    long = ReceiverFacts(
        *("webhook c", "webhook"),
        error="nobody listens there",
        failing_since=100.0,
        last_failure=190.0,
        given_up=2,
    )
    receivers = [each.describe() for each in (fine, just, long)]
    observed = Observation(make_config(), receivers=receivers)
    (found,) = check_notifications(observed, None)
    assert (found.id, found.where) == ("notifications-fail", "webhook c")
    assert "nobody listens there; 2 events given up" in found.evidence
