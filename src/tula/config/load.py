"""Configurations from files and from text: what the other parts of Tula call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tula.config.answer_rules import answer_warnings
from tula.config.backend_rules import pool_warnings, tunnel_to_balancer_problems
from tula.config.compose import compose
from tula.config.errors import BrokenError, ConfigError, by_position, describe, place, shown
from tula.config.fields import Strict, given, settings_of, value_of
from tula.config.high_availability_rules import (
    high_availability_problems,
    high_availability_warnings,
)
from tula.config.listen_rules import listen_problems
from tula.config.models import ConfigModel, ServiceModel
from tula.config.notify_rules import notify_problems
from tula.config.parts import merge_parts, read_text, split
from tula.config.persistence_rules import persistence_problems, persistence_warnings
from tula.config.pydantic_errors import problems_of, without
from tula.config.rules import across_problems, size_problems, top_problems
from tula.config.service_rules import service_problems
from tula.config.services import Merged, finished, merge
from tula.config.source import decode
from tula.config.tree import MapNode, Positions, Value
from tula.config.udp_rules import udp_problems
from tula.model.announce import ENGINES
from tula.model.config import Config
from tula.model.problem import Path as Place
from tula.model.problem import Problem

__all__ = [
    "ConfigError",
    "LoadedConfig",
    "Positions",
    "describe",
    "load_config",
    "parse_config",
    "place",
]

_ROUNDS = 5


@dataclass(frozen=True)
class LoadedConfig:
    """A configuration without problems: its value, its text, where its parts are, and warnings."""

    config: Config
    source: str
    positions: Positions
    warnings: list[Problem]


def load_config(path: Path) -> LoadedConfig:
    """Read and validate a configuration file, or the ``*.yaml`` of a directory.

    Raises ConfigError: with all problems by position, or with one problem and
    ``positions.known`` False when the file is missing, unreadable, or not a regular file. Does
    not wait on pipes, and reads no more than 16 MiB.
    """
    try:
        data = read_text(path)
    except BrokenError as error:
        raise _broken(error) from None
    return parse_config(data)


def parse_config(text: str | bytes) -> LoadedConfig:
    """Validate a configuration; bytes are UTF-8. Raises ConfigError with all its problems."""
    files: tuple[tuple[int, str], ...] = ()
    try:
        source = decode(text)
        parts = split(source)
        files = tuple((part.line, part.name) for part in parts if part.name)
        composed = [(part, *compose(part.text, part.line)) for part in parts]
        root, problems = merge_parts([(part, tree) for part, tree, _ in composed])
    except BrokenError as error:
        raise _broken(error, files) from None
    for _, tree, found in composed:
        if found and files:
            # Its places are those of its own tree: a key may stand in several.
            own = Positions(tree, files=files)
            raise ConfigError(by_position(found, own), own)
        problems.extend(found)
    positions = Positions(root, files=files)
    config, found, warnings = _validate(root, positions)
    problems.extend(found)
    if problems or config is None:
        raise ConfigError(by_position(problems, positions), positions)
    return LoadedConfig(config, source, positions, by_position(warnings, positions))


def _broken(error: BrokenError, files: tuple[tuple[int, str], ...] = ()) -> ConfigError:
    # The text has no tree whose paths could be asked for, so the whole is placed at the error.
    return ConfigError([Problem((), error.message)], Positions(whole=error.mark, files=files))


def _validate(
    root: Value, positions: Positions
) -> tuple[Config | None, list[Problem], list[Problem]]:
    """The Config if there are no problems, the problems, and warnings.

    Types come first, then the rules between fields on all that could be read.
    """
    if root is None:
        return None, [Problem((), "the configuration is empty; give interfaces and services")], []
    if not isinstance(root, MapNode):
        message = f"expected a map with interfaces and services; got {shown(root)}"
        return None, [Problem((), message)], []
    values, problems = _read(root, positions)
    defaults: Strict = values.pop("defaults", None) or ServiceModel()
    models: Mapping[str, Strict] = values.pop("services", {})
    config = value_of(Config, settings_of(Config), {**values, "services": ()})
    services = merge(root, models, defaults)
    problems.extend(top_problems(root, config, services))
    problems.extend(notify_problems(root, config, models))
    too_much = list(size_problems(services))
    problems.extend(too_much)
    if not too_much:
        for service in services:
            problems.extend(service_problems(service, positions))
            problems.extend(udp_problems(service))
        problems.extend(across_problems(services, positions))
        problems.extend(listen_problems(config, services, positions))
        problems.extend(high_availability_problems(config, services, positions))
        problems.extend(persistence_problems(config, services, positions))
        problems.extend(tunnel_to_balancer_problems(config, services, positions))
    warnings = _warnings(config, services)
    if not problems:
        warnings.extend(answer_warnings(services, positions))
        warnings.extend(high_availability_warnings(config, services, positions))
        warnings.extend(persistence_warnings(services))
    if problems:
        return None, problems, warnings
    return replace(config, services=tuple(map(finished, services))), [], warnings


def _read(root: MapNode, positions: Positions) -> tuple[dict[str, Any], list[Problem]]:
    """What could be read at the top, by the names of fields, and the problems of the rest."""
    tree: object = root
    problems: list[Problem] | None = None
    unreadable: list[Place] = []
    for _ in range(_ROUNDS):
        try:
            return given(ConfigModel.model_validate(tree)), problems or []
        except ValidationError as error:
            found, cuts = problems_of(error, positions)
            # What fails only once its invalid parts are gone is no error of the user's.
            problems = found if problems is None else problems
            unreadable.extend(cuts)
            tree = without(root, unreadable)
    return {}, problems or []


def _warnings(config: Config, services: list[Merged]) -> list[Problem]:
    warnings = []
    if not services:
        warnings.append(Problem(("services",), "there are none yet, so nothing is served"))
    for service in services:
        warnings.extend(pool_warnings(service))
        announce = service.value.announce
        if announce in ENGINES:
            continue
        if isinstance(announce, str) and announce not in config.interfaces:
            message = f"{announce} is not in interfaces: traffic that arrives there is not balanced"
            warnings.append(Problem(service.given["announce"], message))
    return warnings
