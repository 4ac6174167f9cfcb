"""What must be equal on all balancers of a configuration, as a digest. Pure.

Comments and layout make no difference, nor does what belongs to one machine: where it listens, its
certificate, and whom it notifies. A setting that has its default is left out, so that two versions
of Tula agree on a configuration that does not use what only one of them knows.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import lru_cache
from typing import Any

from tula.model.config import Config
from tula.model.health import BackendName, Override

OWN_SECTIONS = ("api", "metrics", "notify")
"""The keys of a configuration that are each machine's own."""


def shared_digest(config: Config) -> str:
    """SHA-256 in hexadecimal. Takes 0.7 s for 5,000 services with 25,000 backends."""
    values = _plain(config)
    for key in OWN_SECTIONS:
        values.pop(key, None)
    return _digest(values)


def describe_override(override: Override) -> dict[str, Any]:
    """What of an override must be equal: times are of one machine. ``release`` stands there only
    where it is set, so that a version that does not know it agrees on all others."""
    told = {"drain": override.drain, "disable": override.disable, "weight": override.weight}
    return {**told, "release": True} if override.release else told


def overrides_digest(overrides: Mapping[BackendName, Override]) -> str:
    """SHA-256 in hexadecimal of what ``describe_override`` tells of all of them."""
    return _digest({"/".join(name): describe_override(each) for name, each in overrides.items()})


def _digest(values: object) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _plain(value: Any) -> Any:
    cls = type(value)
    if cls is str or cls is int or cls is bool or value is None:
        return value
    if is_dataclass(cls):
        found = {}
        for name, default in _fields(cls):
            part = getattr(value, name)
            if default is MISSING or part != default:
                found[name] = _plain(part)
        return found
    if isinstance(value, Enum):
        return str(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, tuple | list):
        return [_plain(part) for part in value]
    if isinstance(value, set | frozenset):
        return sorted((_plain(part) for part in value), key=str)
    return value if isinstance(value, float) else str(value)


@lru_cache
def _fields(cls: Any) -> tuple[tuple[str, Any], ...]:
    """The names of its fields, with their defaults."""
    return tuple(
        (
            each.name,
            each.default if each.default_factory is MISSING else each.default_factory(),
        )
        for each in fields(cls)
    )
