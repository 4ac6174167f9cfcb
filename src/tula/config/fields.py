"""The types of fields: a reader of the value, and the JSON Schema that says the same."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainValidator, WithJsonSchema

from tula.config.addresses import (
    INTERFACE,
    NAME,
    read_address,
    read_announce,
    read_interface,
    read_name,
)
from tula.config.ports import as_port_list, read_ports
from tula.config.scalars import (
    fault,
    read_bool,
    read_duration,
    read_duration_or_zero,
    read_int,
    read_text,
    word_of,
)
from tula.config.shown import choices, meant, shown
from tula.model.config import (
    Affinity,
    Forwarding,
    IPAddress,
    PortRange,
    Protocol,
    Scheduler,
    Tunnel,
)

Schema = dict[str, Any]


class Strict(BaseModel):
    """A map of known keys, which converts nothing by itself."""

    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


def one_or_many(example: str) -> BeforeValidator:
    """A value alone is a list of one; an empty list, a map and nothing at all are refused."""

    def as_list(value: object) -> object:
        if isinstance(value, list) and value:
            return value
        if not isinstance(value, str):
            got = "an empty list" if isinstance(value, list) else shown(value)
            # The address readers know the one map that is really an address.
            if isinstance(value, dict):
                return [value]
            raise fault(f"expected {example}; got {got}")
        return [value]

    return BeforeValidator(as_list)


def integer(low: int, high: int, hexadecimal: bool = False) -> tuple[Any, Any]:
    """Reader and schema of a whole number from ``low`` to ``high``."""

    def read(value: object) -> int:
        return read_int(value, low, high, hexadecimal)

    return PlainValidator(read), _schema({"type": "integer", "minimum": low, "maximum": high})


def word(known: tuple[str, ...], key: str) -> tuple[Any, Any]:
    """Reader and schema of one of a few words; ``key`` is what messages call it."""

    def read(value: object) -> str:
        if isinstance(value, str) and value in known:
            return str(value)
        near = meant(value, known) if isinstance(value, str) else None
        mend = f"did you mean {near}?" if near else f"give {choices(known)}"
        raise fault(f"unknown {key} {shown(value)}; {mend}")

    return PlainValidator(read), _schema({"enum": list(known)})


def _schema(schema: Schema) -> WithJsonSchema:
    return WithJsonSchema(schema)


def _words(enum: type[StrEnum]) -> Schema:
    return {"enum": [str(member) for member in enum]}


def _one_or_list(schema: Schema) -> WithJsonSchema:
    items = {"type": "array", "items": schema, "minItems": 1, "uniqueItems": True}
    return _schema({"anyOf": [schema, items]})


_ADDRESS: Schema = {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}
_PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65535}
_RANGE: Schema = {"type": "string", "pattern": "^[0-9]{1,5}(-[0-9]{1,5})?$"}
_PORTS: Schema = {
    "anyOf": [
        {"const": "any"},
        _PORT,
        _RANGE,
        {"type": "array", "items": {"anyOf": [_PORT, _RANGE]}, "minItems": 1, "uniqueItems": True},
    ]
}
_DURATION: Schema = {
    "anyOf": [
        {"type": "number", "exclusiveMinimum": 0, "maximum": 31536000},
        {
            "type": "string",
            "minLength": 1,
            "pattern": r"^([0-9]+(\.[0-9]+)?s?|"
            r"([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?)$",
        },
    ]
}
_NAME: Schema = {"type": "string", "pattern": f"^{NAME}$"}
_INTERFACE: Schema = {"type": "string", "pattern": f"^{INTERFACE}$"}
_TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": 1024}


def _word_field(enum: type[StrEnum], key: str) -> tuple[Any, Any]:
    return PlainValidator(word_of(enum, key)), _schema(_words(enum))


_Protocol = Annotated[Protocol, PlainValidator(word_of(Protocol, "protocol"))]
_Address = Annotated[IPAddress, PlainValidator(read_address)]

Address = Annotated[_Address, _schema(_ADDRESS)]
Addresses = Annotated[
    list[_Address], one_or_many("an address or a list of them"), _one_or_list(_ADDRESS)
]
Bool = Annotated[bool, PlainValidator(read_bool), _schema({"type": "boolean"})]
Duration = Annotated[float, PlainValidator(read_duration), _schema(_DURATION)]
DurationOrZero = Annotated[
    float,
    PlainValidator(read_duration_or_zero),
    _schema({"anyOf": [{"const": 0}, *_DURATION["anyOf"]]}),
]
Text = Annotated[str, PlainValidator(read_text), _schema(_TEXT)]
Name = Annotated[str, PlainValidator(read_name), _schema(_NAME)]
Interface = Annotated[str, PlainValidator(read_interface), _schema(_INTERFACE)]
Announce = Annotated[
    bool | str,
    PlainValidator(read_announce),
    _schema({"anyOf": [{"type": "boolean"}, _INTERFACE]}),
]
Protocols = Annotated[
    list[_Protocol],
    one_or_many("tcp, udp or [tcp, udp]"),
    _one_or_list(_words(Protocol)),
]
Ports = Annotated[
    list[Annotated[PortRange, PlainValidator(read_ports)]],
    BeforeValidator(as_port_list),
    _schema(_PORTS),
]
ForwardingWord = Annotated[Forwarding, *_word_field(Forwarding, "forwarding")]
TunnelWord = Annotated[Tunnel, *_word_field(Tunnel, "tunnel")]
SchedulerWord = Annotated[Scheduler, *_word_field(Scheduler, "scheduler")]
AffinityWord = Annotated[Affinity, *_word_field(Affinity, "affinity")]
