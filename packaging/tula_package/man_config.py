"""tula.yaml(5), from the JSON Schema that ``tula schema`` prints."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

from tula_package import roff

_EXAMPLE = """\
interfaces: [eth0]
services:
  web:
    vip: 10.0.0.100
    ports: [80, 443]
    forwarding: l2
    health: {type: http}
    backends:
      cache\\-1: {address: 10.0.0.11}
      cache\\-2: {address: 10.0.0.12}"""
_REFERENCE = "#/$defs/"
_ITEM = {True: "NAME", False: "[]"}


def config_page(schema: Mapping[str, Any], date: str, version: str) -> str:
    """The page: one section for every map, in the order in which they contain each other."""
    return roff.page(_lines(schema, date, version))


def _lines(schema: Mapping[str, Any], date: str, version: str) -> Iterator[str]:
    yield roff.title("tula.yaml", 5, date, version)
    yield from roff.name_section("tula.yaml", "configuration of the load balancer Tula")
    yield ".SH SYNOPSIS"
    yield roff.italic("/etc/tula/tula.yaml")
    yield ".SH DESCRIPTION"
    yield from roff.paragraphs(
        "A YAML file. Unknown keys are errors. `tula check -f F` tests a file, `tula plan` shows "
        "what it would change, and nothing changes before `tula apply` or `tula reload` accepts it."
        "\n\nTimes are written as 500ms, 60s, 2h, or as a number of seconds. Names of services and "
        "backends have 1 to 63 of a-z, 0-9 and the dash."
    )
    yield ".SH EXAMPLE"
    yield from (".PP", ".nf", _EXAMPLE, ".fi")
    for path, model in sections(schema):
        yield f".SH {_heading(path)}"
        yield from roff.paragraphs(model.get("description", ""))
        required = set(model.get("required", ()))
        for key, value in model["properties"].items():
            tag = f"{roff.bold(key)}: {roff.italic(kind(value))}"
            yield from roff.tagged(tag, _meaning(value, key in required))
    yield ".SH SEE ALSO"
    yield f"{roff.bold('tula')}(1), {roff.italic('/usr/share/doc/tula/configuration.md')}"


def _heading(path: str) -> str:
    return f'"KEYS OF {roff.literal(path)}"' if path else '"TOP\\-LEVEL KEYS"'


def sections(schema: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Each map of the configuration once, with the path where it is first."""
    waiting: deque[tuple[str, Mapping[str, Any]]] = deque([("", schema)])
    seen: set[str] = set()
    while waiting:
        path, model = waiting.popleft()
        yield path, model
        # What is in services and not in defaults, which has the same keys.
        for key, value in sorted(
            model["properties"].items(), key=lambda item: item[0] == "defaults"
        ):
            for below, name in _references(value, f"{path}.{key}" if path else key):
                if name not in seen:
                    seen.add(name)
                    waiting.append((below, schema["$defs"][name]))


def _references(value: Any, path: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for each in value:
            yield from _references(each, path)
    elif isinstance(value, Mapping):
        if str(value.get("$ref", "")).startswith(_REFERENCE):
            yield path, value["$ref"].removeprefix(_REFERENCE)
        for word, below in value.items():
            step = {"additionalProperties": ".NAME", "items": "[]"}.get(word, "")
            if word in ("additionalProperties", "items", "anyOf"):
                yield from _references(below, path + step)


def kind(value: Mapping[str, Any]) -> str:
    """What a key takes, in few words."""
    if "enum" in value:
        return " | ".join(map(str, value["enum"]))
    if "const" in value:
        return str(value["const"])
    if "anyOf" in value:
        if any("[0-9]+ms" in each.get("pattern", "") for each in value["anyOf"]):
            return "time"
        kinds = [kind(each) for each in value["anyOf"]]
        return " | ".join(dict.fromkeys(kinds))
    if "$ref" in value:
        return "map"
    match value.get("type"):
        case "array":
            return f"list of {kind(value['items'])}"
        case "object":
            return "map by name"
        case "integer" | "number":
            return "number"
        case "boolean":
            return "true | false"
    return {"ipv4": "address", "ipv6": "address"}.get(value.get("format", ""), "text")


def _meaning(value: Mapping[str, Any], required: bool) -> str:
    parts = [value.get("description", "")]
    if {"minimum", "maximum"} <= value.keys():
        parts.append(f"From {value['minimum']} to {value['maximum']}.")
    if required:
        parts.append("Required.")
    elif "default" in value:
        parts.append(f"Default: {_shown(value['default'])}.")
    return " ".join(part for part in parts if part) or "See below."


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
