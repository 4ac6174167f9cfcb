"""What changes by signal and by time is in the audit log, and what was asked for is there once."""

from __future__ import annotations

from pathlib import Path

from tula.daemon.own_changes import follow_events
from tula.engine.audit import AuditLog, Result, read_audit
from tula.engine.event_log import EventLog
from tula.model.event import EventKind


def test_what_nobody_asked_the_api_for(tmp_path: Path) -> None:
    log, events = AuditLog(tmp_path), EventLog()
    events.followers.append(follow_events(log))
    with log.written():
        for by in ("SIGHUP", "", "root", "token:ci"):
            events.add(EventKind.CONFIGURATION_ACCEPTED, message="1 service", evidence="+", by=by)
            events.add(EventKind.CONFIGURATION_REFUSED, message="no such key", by=by)
            events.add(EventKind.CONFIGURATION_TENTATIVE, message="goes back", by=by)
        events.add(EventKind.CONFIGURATION_REVERTED, message="not confirmed in time")
        events.add(EventKind.BACKEND_DOWN, "web/b1")
        events.add(EventKind.DISABLED, "web/b1", by="root")
    found = [(each.who, each.action, each.result, each.why) for each in read_audit(tmp_path, 50)]
    assert found == [
        ("SIGHUP", "apply", Result.DONE, ""),
        ("SIGHUP", "apply", Result.REFUSED, "no such key"),
        ("daemon", "apply", Result.DONE, ""),
        ("daemon", "go-back", Result.DONE, ""),
    ]
    assert read_audit(tmp_path, 1)[0].details == {"how": "not confirmed in time"}
