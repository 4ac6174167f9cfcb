"""Whether those arrive who are to be told of changes. Pure."""

from __future__ import annotations

import time
from collections.abc import Iterator

from tula.doctor.observation import Observation
from tula.doctor.requests import Responses
from tula.model.finding import Finding, Severity
from tula.model.wording import counted, describe_duration, printable

_LONG = 60.0
"""Seconds of failures that are no accident."""


def check_notifications(observed: Observation, _: Responses) -> Iterator[Finding]:
    """Traffic is fine without them, but nobody hears when it is not."""
    for each in observed.receivers:
        since, last = each.get("failing_since"), each.get("last_failure")
        if since is None or last is None or last - since < _LONG:
            continue
        lost = each.get("given_up") or 0
        yield Finding(
            "notifications-fail", Severity.WARNING, printable(str(each["receiver"]), 127),
            f"has taken nothing for {describe_duration(int(max(time.time(), last) - since))}: "
            f"{printable(str(each.get('error')), 200)}"
            + (f"; {counted(lost, 'event')} given up" if lost else ""),
            "correct notify in the configuration, or what is in the way; tula notify test tries it",
        )  # fmt: skip
