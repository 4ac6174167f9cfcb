"""What the thread that tells receivers shows to all others: it never changes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from tula.daemon.notify.pipeline import Pipeline
from tula.engine.notify_facts import ReceiverFacts
from tula.engine.peer_view import Notified, Told

_SETTLES = 1.0
"""Seconds by which what is settled stays behind: an event may be on its way."""
_TOLD = 60.0
"""Seconds of failures after which status warns."""


@dataclass(frozen=True, slots=True)
class Published:
    """At one moment. ``unsettled`` is when the first event was that a receiver was not told yet."""

    facts: tuple[ReceiverFacts, ...] = ()
    unsettled: Mapping[str, float | None] = field(default_factory=dict)
    sent: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    revisions: Mapping[str, int] = field(default_factory=dict)
    digest: str = ""

    @property
    def problems(self) -> tuple[str, ...]:
        """The receivers that have taken nothing for some time."""
        return tuple(
            f"notifications to {each.name} fail: {each.error}"
            for each in self.facts
            if each.failing_since is not None
            and (each.last_failure or 0.0) - each.failing_since >= _TOLD
        )

    def notified(self, wall: float) -> Notified:
        """For other balancers; ``wall``: whatever happened earlier has arrived here."""
        return Notified(
            {
                key: Told(
                    wall - _SETTLES if at is None else min(wall - _SETTLES, at - 0.001),
                    self.sent[key],
                )
                for key, at in self.unsettled.items()
            },
            self.digest,
        )


def publish(pipelines: Iterable[Pipeline], before: Published) -> Published:
    """How all stand now; what has not changed since ``before`` is not copied again."""
    found = list(pipelines)
    revisions = {each.receiver.identity: each.revision for each in found}
    sent, digest = before.sent, before.digest
    if revisions != before.revisions:
        sent = {each.receiver.identity: dict(each.sent) for each in found}
        text = json.dumps(sent, sort_keys=True).encode()
        digest = hashlib.sha256(text).hexdigest()[:32]
    return Published(
        tuple(each.current() for each in found),
        {each.receiver.identity: each.unsettled for each in found},
        sent,
        revisions,
        digest,
    )
