"""What plan and apply do, in the user's terms: services and backends, not maps and chains. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tula.dataplane.port import ChangeStep
from tula.engine.differences import describe_differences
from tula.model.config import Config
from tula.plan.config_changes import describe_config_changes

_SEEN = frozenset({"address", "tunnel", "tunnel endpoint", "tunnel endpoints"})
"""What ``ip address`` and ``ip link`` show: the machine's, not only Tula's."""
_SIGNS = {"add": "+", "change": "~", "remove": "-"}


def describe_plan(
    changes: Sequence[str], after: Config, steps: Iterable[ChangeStep]
) -> tuple[str, ...]:
    """A line each: what changes in the configuration, and the VIPs and tunnels that come and
    go.

    ``changes`` are those between what runs and ``after`` (``describe_config_changes``); ``steps``
    what is done in the kernel. Where the configurations are equal, the lines tell how the kernel
    differs; where it has no table of Tula, all of ``after`` is new to it.
    """
    found = list(steps)
    fresh = any((step.verb, step.what) == ("add", "table") for step in found)
    lines = list(changes)
    if fresh:  # of the settings none is news
        lines = [line for line in describe_config_changes(None, after) if line.startswith("+")]
    lines += [
        f"{_SIGNS[step.verb]} {step.what} {step.name}  ({step.detail})"
        for step in found
        if step.what in _SEEN
    ]
    inside = [step for step in found if step.what not in _SEEN]
    if inside and not changes and not fresh:
        lines += [f"~ kernel: {line}" for line in describe_differences(inside)]
    return tuple(lines)
