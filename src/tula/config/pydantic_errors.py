"""Pydantic's errors as problems of ours, and the configuration without the invalid parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pydantic import BaseModel, ValidationError

from tula.config.errors import meant, quoted, shown
from tula.config.fields import section_of, settings_of
from tula.config.models import (
    BackendModel,
    CheckModel,
    ConfigModel,
    HealthModel,
    MonitorModel,
    ServiceModel,
)
from tula.config.scalars import INVALID
from tula.config.tree import Positions, Value
from tula.model.config import Config, VirtualService
from tula.model.notifying import Receiver
from tula.model.problem import Path, Problem

_MODELS: dict[Path, type[BaseModel]] = {
    (): ConfigModel,
    ("defaults",): ServiceModel,
    ("services", "*"): ServiceModel,
    ("services", "*", "backends", "*"): BackendModel,
    ("services", "*", "health"): HealthModel,
    ("services", "*", "health", "checks", "*"): CheckModel,
    ("services", "*", "checks", "*"): MonitorModel,
}


def _sections(cls: type, path: Path = ()) -> Iterator[tuple[Path, type]]:
    for declared in settings_of(cls):
        part = section_of(declared.hint)
        if part is not None:
            yield (*path, declared.key), part
            yield from _sections(part, (*path, declared.key))


_SECTIONS: dict[Path, type] = dict(
    (
        *_sections(Config),
        *_sections(VirtualService, ("services", "*")),
        (("notify", "*"), Receiver),
        *_sections(Receiver, ("notify", "*")),
    )
)

_EXPECTED: dict[Path, str] = {
    ("interfaces",): "a list of interfaces such as [eth0]",
    ("load_balancers",): "a map of addresses such as {lb1: 10.0.0.2}",
    ("defaults",): "a map of service keys such as {scheduler: maglev}",
    ("high_availability",): "a map such as {vrrp: {id: 84}}",
    ("high_availability", "vrrp"): "a map such as {id: 84}",
    ("high_availability", "bgp"): "a map such as {as: 65001, routers: {10.0.0.1: 65000}}",
    ("high_availability", "bgp", "routers"): "a map of AS numbers such as {10.0.0.1: 65000}",
    ("connections",): "a map such as {tcp: 2h, udp: 120s}",
    ("maglev",): "a map such as {slots: 65537}",
    ("marks",): "a map such as {first: 0x10000, last: 0xffffffff}",
    ("tunnels",): "a map such as {gue_port: 5555}",
    ("api",): "a map such as {listen: '10.0.0.2:8420'}",
    ("metrics",): "a map such as {listen: '127.0.0.1:9420'}",
    ("notify",): "a list such as [{webhook: 'https://hooks.example.org/tula'}]",
    ("notify", "*"): "a map such as {webhook: 'https://hooks.example.org/tula'}",
    ("notify", "*", "headers"): "a map of headers such as {X-From: tula}",
    ("notify", "*", "email"): "a map with to, from and smarthost",
    ("services",): "a map of services by name, {} for none",
    ("services", "*"): "a map with vip, ports, forwarding and backends",
    ("services", "*", "backends"): "a map of backends by name, {} for none",
    ("services", "*", "backends", "*"): "a map such as {address: 10.0.0.11, weight: 100}",
    ("services", "*", "persistence"): "a time such as 5m, or a map such as {timeout: 5m}",
    ("services", "*", "limits"): "a map such as {new_per_second: 1000, per_client: 20}",
    ("services", "*", "health"): "a health check such as {type: tcp}",
    ("services", "*", "health", "headers"): "a map of headers such as {X-Probe: tula}",
    ("services", "*", "health", "checks"): "a list of health checks such as [{type: tcp}]",
    ("services", "*", "health", "checks", "*"): "a health check such as {type: tcp}",
    ("services", "*", "health", "checks", "*", "headers"): "a map such as {X-Probe: tula}",
    ("services", "*", "checks"): "a list of health checks such as [{type: tcp}]",
    ("services", "*", "checks", "*"): "a health check such as {type: tcp}",
    ("services", "*", "checks", "*", "headers"): "a map of headers such as {X-Probe: tula}",
}

_NEEDED = {
    "address": "give one such as address: 10.0.0.11, or one of each family as a list",
    "type": "give type: tcp, http, https, udp, dns, icmp, script or agent",
}


def problems_of(error: ValidationError, positions: Positions) -> tuple[list[Problem], list[Path]]:
    """The problems, and for each the path of what to remove so that the rest can be read."""
    problems, unreadable = [], []
    for item in error.errors(include_url=False, include_context=False):
        path: Path = item["loc"]
        kind = item["type"]
        if kind == "missing":
            key = str(path[-1])
            path = path[:-1]
            problem = Problem(path, f"needs {key!r}; {_needed(path, key)}", on_key=True)
        elif kind == "extra_forbidden":
            problem = Problem(path, _unknown(path), on_key=True)
        elif path and path[-1] == "[key]":
            path = path[:-1]
            problem = Problem(path, item["msg"], on_key=True)
        elif kind == INVALID:
            # A value alone stands for a list of one, or for a map: what is inside is not in the
            # text.
            while path and not positions.has(path):
                path = path[:-1]
            problem = Problem(path, item["msg"])
        else:
            problem = Problem(path, _wrong_kind(path, item["input"], item["msg"]))
        problems.append(problem)
        unreadable.append(path)
    return problems, unreadable


def known_keys(path: Path) -> list[str]:
    """The keys that the map at ``path`` may have."""
    shape = _shape(path)
    if shape in _SECTIONS:
        return [declared.key for declared in settings_of(_SECTIONS[shape])]
    return [field.alias or name for name, field in _MODELS[shape].model_fields.items()]


def without(root: Value, unreadable: Iterable[Path]) -> object:
    """A copy of the tree without the values at these paths.

    A copy, because aliases share what they name, and because positions need the whole.
    """
    # As a tree of paths, so that each map is copied once, however many of its keys go.
    cuts: dict[str | int, object] = {}
    for path in unreadable:
        node = cuts
        for part in path[:-1]:
            inner = node.setdefault(part, {})
            if not isinstance(inner, dict):
                break  # the whole goes already
            node = inner
        else:
            node[path[-1]] = None
    return _cut(root, cuts)


def _cut(value: object, cuts: object) -> object:
    if not isinstance(cuts, dict) or not isinstance(value, dict | list):
        return value
    gone = {part for part, inner in cuts.items() if inner is None}
    if isinstance(value, dict):
        return {k: _cut(v, cuts.get(k)) for k, v in value.items() if k not in gone}
    return [_cut(v, cuts.get(i)) for i, v in enumerate(value) if i not in gone]


def _shape(path: Path) -> Path:
    """The path with names left open, and ``defaults`` as the service that it is a part of."""
    if len(path) > 1 and path[0] == "defaults":
        path = ("services", "*", *path[1:])
    elif path[:1] == ("defaults",):
        return path
    if path[:1] == ("notify",) and len(path) > 1:
        return ("notify", "*", *path[2:])
    if path[:1] != ("services",):
        return path
    shape = list(path)
    if len(shape) > 1:
        shape[1] = "*"
    if len(shape) > 3 and shape[2] == "backends":
        shape[3] = "*"
    for at in (3, 4):
        if len(shape) > at and shape[at - 1] == "checks":
            shape[at] = "*"
    return tuple(shape)


def _needed(path: Path, key: str) -> str:
    shape = _shape(path)
    if shape not in _SECTIONS:
        return _NEEDED[key]
    (found,) = (each for each in settings_of(_SECTIONS[shape]) if each.key == key)
    return f"give one {found.setting.example}"


def _unknown(path: Path) -> str:
    word = str(path[-1])
    known = known_keys(path[:-1])
    near = meant(word, known)
    fix = f"did you mean {near!r}?" if near else f"known here: {', '.join(known)}"
    return f"unknown key {quoted(word)}; {fix}"


def _wrong_kind(path: Path, value: object, message: str) -> str:
    expected = _EXPECTED.get(_shape(path))
    if expected is None:
        # Every map and list of the models stands in the table; this keeps a gap readable.
        return message[:200]
    fix = f"; write [{shown(value)}]" if path == ("interfaces",) and isinstance(value, str) else ""
    return f"expected {expected}; got {shown(value)}{fix if len(fix) < 40 else ''}"
