"""What the contract names and this version does not do yet: refused or warned of by name.

A version that brings one of these deletes its line here, and nothing else.
"""

from __future__ import annotations

NOT_YET: dict[tuple[str, str], str] = {
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


def available(key: str, words: list[str]) -> list[str]:
    """The words that the key takes in this version."""
    return [word for word in words if (key, word) not in NOT_YET]
