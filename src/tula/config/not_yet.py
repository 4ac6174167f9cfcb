"""What the contract names and this version does not do yet: refused or warned of by name.

A version that brings one of these deletes its line here, and nothing else.
"""

from __future__ import annotations

_TABLE = "needs the connection table, which is not in this version; use maglev or source-hash"

NOT_YET: dict[tuple[str, str], str] = {
    ("forwarding", "l3"): "l3 is not available in this version; use l2",
    ("scheduler", "rr"): f"rr {_TABLE}",
    ("scheduler", "wrr"): f"wrr {_TABLE}",
    ("scheduler", "random"): f"random {_TABLE}",
    ("scheduler", "least-connections"): (
        "least-connections needs the daemon, which is not in this version; "
        "use maglev or source-hash"
    ),
}
"""(key, value) to the message of the refusal."""

HEALTH_WARNING: str | None = (
    "health checks are run by the daemon, which is not in this version: "
    "every backend counts as in service"
)
"""Given once for a document that has health checks; None when they run."""

CONNECTIONS_WARNING: str | None = (
    "the connection table is not in this version: these settings have no effect, "
    "and a flow's backend is computed for every packet"
)
"""Given for a document that has ``connections``; None when the table exists."""


def available(key: str, words: list[str]) -> list[str]:
    """The words that the key takes in this version."""
    return [word for word in words if (key, word) not in NOT_YET]
