"""The steps of a change in words: what plan and apply show, and the daemon's answer to apply."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from tula.dataplane.nft.describe import describe_transaction
from tula.engine.change import Change
from tula.engine.tunnel_steps import tunnel_steps
from tula.model.desired import OwnedAddress


def describe_steps(change: Change) -> list[dict[str, Any]]:
    """The ``steps`` of ``tula apply --json``, in the order in which they are done."""
    steps = tunnel_steps(change, before=True)
    steps += [_address("add", owned) for owned in change.add]
    steps += [
        {"verb": d.verb, "what": d.what, "name": d.name, "detail": d.detail}
        for d in describe_transaction(change.transaction)
    ]
    steps += [_address("remove", owned) for owned in change.remove]
    return steps + tunnel_steps(change, before=False)


def _address(verb: str, owned: OwnedAddress) -> dict[str, Any]:
    name, where = str(owned.address), f"on {owned.interface}"
    return {"verb": verb, "what": "address", "name": name, "detail": where}


def render_steps(steps: Iterable[Mapping[str, Any]]) -> bytes:
    """The steps as a JSON array.

    One step at a time: the encoder holds the interpreter's lock for as long as a call takes, and
    a large change has some ten thousand steps.
    """
    return ("[" + ", ".join(json.dumps(step) for step in steps) + "]").encode()
