"""The JSON Schema says what the loader accepts."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator

import pytest

from tula.config.schema import json_schema
from tula.model.config import Scheduler


@pytest.fixture(scope="module")
def schema() -> dict:
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # they would be printed by `tula schema`
        return json.loads(json.dumps(json_schema()))


def maps(node: object) -> Iterator[dict]:
    if isinstance(node, dict):
        yield node
        for value in node.values():
            yield from maps(value)
    elif isinstance(node, list):
        for value in node:
            yield from maps(value)


def test_it_names_its_draft(schema: dict) -> None:
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_what_is_required(schema: dict) -> None:
    assert schema["required"] == ["interfaces", "services"]
    assert schema["$defs"]["BackendModel"]["required"] == ["address"]
    assert schema["$defs"]["MonitorModel"]["required"] == ["type"]
    assert schema["$defs"]["VrrpModel"]["required"] == ["id"]
    assert schema["$defs"]["BgpModel"]["required"] == ["as", "routers"]
    needed = {
        rule["else"]["properties"]["services"]["additionalProperties"]["required"][0]
        for rule in schema["allOf"]
        if "else" in rule
    }
    assert needed == {"vip", "ports", "forwarding", "backends"}


def test_unknown_keys_are_errors(schema: dict) -> None:
    for model in (schema, *schema["$defs"].values()):
        assert model["additionalProperties"] is False


def test_names(schema: dict) -> None:
    service = schema["$defs"]["ServiceModel"]["properties"]
    for field in (schema["properties"]["services"], service["backends"]):
        assert field["propertyNames"] == {"pattern": "^[a-z0-9-]{1,63}$"}
        assert "$ref" in field["additionalProperties"]


def test_keys_with_few_words(schema: dict) -> None:
    service = schema["$defs"]["ServiceModel"]["properties"]
    assert set(service["scheduler"]["enum"]) == {str(s) for s in Scheduler}
    assert "default" not in service["forwarding"], "it is required"
    assert service["scheduler"]["default"] == "maglev"


def test_health_is_one_check_or_several(schema: dict) -> None:
    health = schema["$defs"]["HealthModel"]
    assert health["anyOf"] == [{"required": ["type"]}, {"required": ["checks"]}]
    assert health["properties"]["checks"]["items"] == {"$ref": "#/$defs/CheckModel"}
    assert "required" not in schema["$defs"]["CheckModel"]
    panic = health["properties"]["panic_threshold"]["anyOf"]
    assert {"const": "never"} in panic


def test_ranges(schema: dict) -> None:
    weight = schema["$defs"]["BackendModel"]["properties"]["weight"]
    assert (weight["minimum"], weight["maximum"], weight["default"]) == (0, 65535, 100)


def test_every_key_is_described(schema: dict) -> None:
    for model in (schema, *schema["$defs"].values()):
        for key, field in model["properties"].items():
            assert field.get("description") or "$ref" in field, key


def test_nothing_of_pydantic_is_left(schema: dict) -> None:
    for node in maps(schema):
        assert node.get("type") != "null"
        assert node.get("default", "something") not in (None, "", [], {})
    references = {node["$ref"] for node in maps(schema) if isinstance(node.get("$ref"), str)}
    assert references == {f"#/$defs/{name}" for name in schema["$defs"]}
