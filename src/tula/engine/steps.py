"""The steps of a change as JSON: what plan and apply show, and the daemon's answer to apply."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tula.engine.change import Change


def describe_steps(change: Change) -> Iterator[dict[str, Any]]:
    """The ``steps`` of ``tula apply --json``, in the order in which they are done."""
    for step in change.steps():
        yield {"verb": step.verb, "what": step.what, "name": step.name, "detail": step.detail}


def render_steps(steps: Iterable[Mapping[str, Any]]) -> bytes:
    """The steps as a JSON array.

    One step at a time: the encoder holds the interpreter's lock for as long as a call takes, and
    a large change has some ten thousand steps.
    """
    return ("[" + ", ".join(json.dumps(step) for step in steps) + "]").encode()
