"""How the operator's commands change the overrides of backends: with a daemon and without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tula.model.health import BackendName, Override

OverrideChange = Callable[[Override], Override]
"""From a backend's override before a command to the one after it."""


def override_change(
    verb: str,
    now: float,
    *,
    deadline: float | None = None,
    release: bool = False,
    weight: int | None = None,
) -> OverrideChange:
    """``drain``, ``undrain``, ``disable``, ``enable`` or ``weight``.

    ``deadline`` is in seconds from ``now``; ``release``: without its persistent clients; a
    ``weight`` of None is the configuration's.
    """
    until = None if deadline is None else now + deadline
    return {
        "drain": lambda old: replace(old, drain=True, since=now, deadline=until, release=release),
        "undrain": lambda old: replace(old, drain=False, deadline=None, release=False),
        "disable": lambda old: replace(old, disable=True, since=now),
        "enable": lambda old: replace(old, disable=False),
        "weight": lambda old: replace(old, weight=weight),
    }[verb]


def changed_overrides(
    overrides: Mapping[BackendName, Override], name: BackendName, change: OverrideChange
) -> dict[BackendName, Override]:
    """All overrides after a change of one backend's."""
    changed = change(overrides.get(name, Override()))
    others = {other: override for other, override in overrides.items() if other != name}
    return {**others, name: changed} if changed else others
