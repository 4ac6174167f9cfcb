"""How the operator's commands change a backend's override, with a daemon or without."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

from tula.model.health import BackendName, Override

Say = Callable[[Override], Override]


def say(verb: str, now: float, *, deadline: float | None = None, weight: int | None = None) -> Say:
    """``drain``, ``undrain``, ``disable``, ``enable`` or ``weight``.

    ``now`` is in seconds of the boot clock, ``deadline`` in seconds from then. A ``weight`` of
    None is that of the configuration.
    """
    until = None if deadline is None else now + deadline
    return {
        "drain": lambda old: replace(old, drain=True, since=now, deadline=until),
        "undrain": lambda old: replace(old, drain=False, deadline=None),
        "disable": lambda old: replace(old, disable=True, since=now),
        "enable": lambda old: replace(old, disable=False),
        "weight": lambda old: replace(old, weight=weight),
    }[verb]


def changed_overrides(
    overrides: Mapping[BackendName, Override], name: BackendName, change: Say
) -> dict[BackendName, Override]:
    """All overrides after one backend's was changed; one that overrides nothing is dropped."""
    new = change(overrides.get(name, Override()))
    others = {other: override for other, override in overrides.items() if other != name}
    return {**others, name: new} if new else others
