"""The JSON Schema of the configuration, for editors and ``tula schema``."""

from __future__ import annotations

from typing import Any

from tula.config.addresses import NAME
from tula.config.models import ConfigModel
from tula.config.service_rules import REQUIRED_KEYS


def json_schema() -> dict[str, object]:
    """JSON Schema (draft 2020-12) of what this version accepts.

    It says what fields hold. The rules between fields (overlaps, families, doubled addresses)
    are beyond it: ``tula check`` has them.
    """
    schema: dict[str, Any] = ConfigModel.model_json_schema()
    definitions = schema["$defs"]
    _tidy(schema)
    definitions["ServiceModel"]["not"] = {"required": ["health", "checks"]}
    definitions["HealthModel"]["anyOf"] = [{"required": ["type"]}, {"required": ["checks"]}]
    for owner in (schema, definitions["ServiceModel"]):
        for field in owner["properties"].values():
            if "patternProperties" in field or "propertyNames" in field:
                _names_only(field)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tula.yaml",
        **schema,
        "required": ["interfaces", "services"],
        "allOf": [*map(_required_unless_default, REQUIRED_KEYS), _INTERFACES_FOR_SERVICES],
    }


_INTERFACES_FOR_SERVICES: dict[str, object] = {
    "if": {"properties": {"services": {"minProperties": 1}}},
    "then": {"properties": {"interfaces": {"minItems": 1}}},
}
"""A machine that serves nothing yet needs none."""


def _required_unless_default(key: str) -> dict[str, object]:
    """Every service needs the key, unless defaults give it."""
    each = {"properties": {"services": {"additionalProperties": {"required": [key]}}}}
    default = {"properties": {"defaults": {"required": [key]}}, "required": ["defaults"]}
    return {"if": default, "else": each}


def _names_only(field: dict[str, Any]) -> None:
    """Write the map of names as ``propertyNames`` and ``additionalProperties``."""
    values = field.pop("patternProperties", None)
    if values:
        (field["additionalProperties"],) = values.values()
    field["propertyNames"] = {"pattern": f"^{NAME}$"}


def _tidy(node: object) -> None:
    """Take away what pydantic adds for itself: titles, null, defaults that mean not given; and
    the point of whole seconds."""
    if isinstance(node, list):
        for item in node:
            _tidy(item)
    if not isinstance(node, dict):
        return
    # Titles are strings; a property named title would be a map.
    if isinstance(node.get("title"), str):
        del node["title"]
    if "default" in node and node["default"] in (None, "", [], {}, 0):
        del node["default"]
    if isinstance(node.get("default"), float) and node["default"].is_integer():
        node["default"] = int(node["default"])
    options = node.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        options.remove({"type": "null"})
        if len(options) == 1:
            del node["anyOf"]
            node.update(options[0])
    for value in node.values():
        _tidy(value)
