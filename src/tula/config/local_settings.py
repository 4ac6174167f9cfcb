"""What a configuration may have only from this machine's own file: ``Setting(local=True)``.

Such a setting runs a program, names a file or opens a listener. Whoever may write configurations
over the network is no user of this machine, and must not become one that way.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import lru_cache
from typing import Any, get_args, get_type_hints

from tula.config.fields import settings_of
from tula.config.tree import Positions
from tula.model.config import Config
from tula.model.problem import Path, Problem


@dataclass(frozen=True, slots=True)
class LocalSetting:
    """A local setting that a configuration has. ``declared`` is the class and the field, ``place``
    where its value is in the model, ``within`` the part of the text that it belongs to."""

    declared: tuple[str, str]
    key: str
    value: object
    place: Path
    within: Path


Known = frozenset[tuple[tuple[str, str], object]]
"""Local settings without their place."""


def local_settings(config: Config) -> Iterator[LocalSetting]:
    """All of them. Sections are always there; other settings only where they are given."""
    yield from _walk(config, (), ())


def known_settings(config: Config) -> Known:
    """Their values, wherever they stand."""
    return frozenset((each.declared, each.value) for each in local_settings(config))


def foreign_problems(
    config: Config, positions: Positions, running: Config | None, known: Known, file: str
) -> list[Problem]:
    """The local settings that are neither as they run, at the same place, nor in the local file."""
    wanted = [s for s in local_settings(config) if (s.declared, s.value) not in known]
    if not wanted:
        return []
    have = {} if running is None else {s.place: s.value for s in local_settings(running)}
    return [
        _problem(setting, positions, file)
        for setting in wanted
        if setting.place not in have or have[setting.place] != setting.value
    ]


def _problem(setting: LocalSetting, positions: Positions, file: str) -> Problem:
    if is_dataclass(setting.value):
        what = "who is notified" if setting.key == "notify" else "what listens on the network"
        message = (
            f"{what} comes only from this machine's file; leave {setting.key} "
            f"as it runs, or change it on the machine: tula apply -f {file}"
        )
        return Problem(setting.within, message, on_key=True)
    message = (
        "what runs a program or names a file comes only from this machine's file; leave it as it "
        f"runs, or have it in {file} first"
    )
    for within in (setting.within, ("defaults",)):
        found = next(positions.paths_to(setting.key, setting.value, within), None)
        if found is not None:
            return Problem(found, message)
    return Problem(setting.within, message, on_key=True)


def _walk(value: Any, place: Path, within: Path) -> Iterator[LocalSetting]:
    """``within`` ends with the name of a service: below it, model and text have other shapes."""
    cls: Any = type(value)
    if not _may_hold(cls):
        return
    local = _declared(cls)
    for each in fields(value):
        found, here = getattr(value, each.name), (*place, each.name)
        if each.name in local:
            key, default = local[each.name]
            section = is_dataclass(found)
            if section or found != default:
                declared = (cls.__qualname__, each.name)
                yield LocalSetting(declared, key, found, here, (key,) if section else within)
        elif is_dataclass(found):
            yield from _walk(found, here, within or (each.name,))
        elif isinstance(found, tuple):
            for index, item in enumerate(found):
                name = getattr(item, "name", index)
                part = within if len(within) > 1 else (each.name, name)
                yield from _walk(item, (*here, name), part)


@lru_cache
def _declared(cls: Any) -> dict[str, tuple[str, object]]:
    """The key and the default of its local settings, by field."""
    return {
        each.field.name: (each.key, None if each.required else each.field.default)
        for each in settings_of(cls)
        if each.setting.local
    }


def _may_hold(cls: type) -> bool:
    """Whether a value of the class may have local settings in it: 25,000 backends have none."""
    return bool(is_dataclass(cls)) and _holds(cls)


@lru_cache
def _holds(cls: Any) -> bool:
    hints: Any = get_type_hints(cls).values()
    return bool(_declared(cls)) or any(_holds(part) for hint in hints for part in _classes(hint))


def _classes(hint: Any) -> Iterator[Any]:
    if isinstance(hint, type) and is_dataclass(hint):
        yield hint
    for part in get_args(hint):
        yield from _classes(part)
