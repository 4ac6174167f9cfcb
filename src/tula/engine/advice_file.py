"""What checks have said of backends beside up and down, on disk, for the next daemon.

A backend that its check has drained must get no new flows while a new daemon has no answer yet,
and an agent says only once that it drains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tula.kernel.directory import Directory
from tula.model.advice import HEAVIEST, Admin, Advice, GivenWeight
from tula.model.config import Config
from tula.model.health import BackendName

Said = Mapping[BackendName, tuple[Advice, ...]]
"""Of the backends of which something is said."""

NAME = "advice.json"
_LONGEST = 400
_MOST = 64
"""Checks of one backend."""


class AdviceFile:
    """The file ``advice.json`` of the state directory."""

    def __init__(self, directory: Path) -> None:
        self._files = Directory(directory)

    def read(self, config: Config) -> Said:
        """What was said of the backends that a configuration has at the same address, by checks
        that still can. Nothing if the file is missing or damaged."""
        try:
            found = json.loads(self._files.read(NAME))["backends"]
        except (OSError, LookupError, ValueError, TypeError, RecursionError):
            return {}
        said: dict[BackendName, tuple[Advice, ...]] = {}
        for service in config.services:
            if not any(monitor.advises for monitor in service.health):
                continue
            for backend in service.backends:
                try:
                    entry = found[f"{service.name}/{backend.name}"]
                    if entry["key"] == backend.key:
                        said[service.name, backend.name] = tuple(
                            _decode(each) for each in entry["advice"][:_MOST]
                        )
                except (LookupError, ValueError, TypeError, AttributeError):
                    continue
        return said

    def exists(self) -> bool:
        """Whether there is one."""
        try:
            self._files.size(NAME)
        except OSError:
            return False
        return True

    def write(self, config: Config, said: Said) -> None:
        """Replaces it. Raises OSError."""
        keys = {(s.name, b.name): b.key for s in config.services for b in s.backends}
        backends = {
            "/".join(name): {"key": keys[name], "advice": [_encode(each) for each in advice]}
            for name, advice in said.items()
            if name in keys
        }
        text = json.dumps({"version": 1, "backends": backends})
        self._files.write(NAME, text.encode())


def _encode(advice: Advice) -> dict[str, Any]:
    weight = advice.weight
    return {
        "check": advice.check,
        "who": advice.who,
        "weight": None if weight is None else weight.value,
        "percent": weight is not None and weight.percent,
        "admin": str(advice.admin),
        "cause": advice.cause,
        "up": advice.up,
        "evidence": advice.evidence,
    }


def _decode(data: Mapping[str, Any]) -> Advice:
    weight, up = data["weight"], data["up"]
    if weight is not None and not 0 <= int(weight) <= HEAVIEST:
        raise ValueError(weight)
    return Advice(
        int(data["check"]),
        str(data["who"])[:_LONGEST],
        None if weight is None else GivenWeight(int(weight), bool(data["percent"])),
        Admin(data["admin"]),
        str(data["cause"])[:_LONGEST],
        None if up is None else bool(up),
        str(data["evidence"])[:_LONGEST],
    )
