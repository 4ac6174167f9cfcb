"""The steps of a change as JSON: what plan and apply show, and the daemon's answer to apply."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from tula.engine.change import Change


def describe_steps(change: Change) -> list[dict[str, Any]]:
    """The ``steps`` of ``tula apply --json``, in the order in which they are done."""
    return [asdict(step) for step in change.steps()]
