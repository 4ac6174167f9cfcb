"""From the declaration of a setting to how it is read, and to the JSON Schema that says the same.

``tula.model.setting`` has the declaration: a field of a frozen dataclass. ``derive`` makes the
pydantic model of such a class, and ``value_of`` the class's value from what the model has read.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields
from enum import StrEnum
from functools import lru_cache
from types import UnionType
from typing import Annotated, Any, NamedTuple, TypeVar, get_args, get_origin, get_type_hints

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainValidator,
    WithJsonSchema,
    create_model,
)
from pydantic import Field as Key

from tula.config.addresses import (
    INTERFACE,
    LEVELS,
    NAME,
    as_port_list,
    read_address,
    read_announce,
    read_backend_address,
    read_backup,
    read_endpoint,
    read_interface,
    read_name,
    read_ports,
    read_prefix,
)
from tula.config.errors import shown
from tula.config.notify_readers import (
    HOST_PORT,
    MAILBOX,
    URL,
    read_host_port,
    read_mailbox,
    read_url,
)
from tula.config.scalars import (
    HEADER,
    int_reader,
    invalid,
    read_bool,
    read_duration,
    read_duration_or_zero,
    read_file,
    read_header_name,
    read_http_path,
    read_text,
    word_reader,
)
from tula.model.config import SELF, IPAddress, PortRange
from tula.model.listening import Endpoint
from tula.model.notifying import Notifications, Receiver
from tula.model.prefixes import IPNetwork, PrefixList
from tula.model.setting import Duration, Form, Integer, OneOf, Setting

K = TypeVar("K")
T = TypeVar("T")
Schema = dict[str, Any]


class Strict(BaseModel):
    """A map of known keys, which converts nothing by itself."""

    model_config = ConfigDict(extra="forbid", strict=True, arbitrary_types_allowed=True)


class Declared(NamedTuple):
    """A setting as its class declares it; ``hint`` is its type without what is written beside."""

    field: Field[Any]
    hint: Any
    setting: Setting

    @property
    def key(self) -> str:
        """What the configuration calls it."""
        return self.setting.key or self.field.name

    @property
    def required(self) -> bool:
        """Whether it has no default."""
        return self.field.default is MISSING and self.field.default_factory is MISSING


def settings_of(cls: Callable[..., object]) -> tuple[Declared, ...]:
    """The settings that a dataclass declares, in its order."""
    return _settings_of(cls)


@lru_cache
def _settings_of(cls: Any) -> tuple[Declared, ...]:
    hints = get_type_hints(cls, include_extras=True)
    found = []
    for field in fields(cls):
        hint, *beside = get_args(hints[field.name]) or (None,)
        setting = next((each for each in beside if isinstance(each, Setting)), None)
        if setting is not None:
            found.append(Declared(field, hint, setting))
    return tuple(found)


def given(model: BaseModel) -> dict[str, Any]:
    """What the configuration gave, by the fields' names."""
    read = model.__dict__
    return {name: read[name] for name in model.model_fields_set}


def value_of(cls: Callable[..., T], declared: Iterable[Declared], values: dict[str, Any]) -> T:
    """The value with these fields.

    An empty tuple stands for what is required and missing. That has a problem of its own, and the
    value is looked at only by the rules for the rest.
    """
    return cls(**{**{d.field.name: () for d in declared if d.required}, **values})


def derive(name: str, about: str, keys: Mapping[str, tuple[Any, Any]]) -> type[Strict]:
    """A model with these keys, which ``keys_of`` gives; ``about`` describes it in the schema."""
    fields: dict[str, Any] = dict(keys)
    model = create_model(name, __base__=Strict, **fields)
    model.__doc__ = about
    return model


def keys_of(declared: Iterable[Declared], *, partial: bool = False) -> dict[str, tuple[Any, Any]]:
    """Type and pydantic's field of each setting, by the field's name.

    ``partial``: none is required, since another map may give what is missing.
    """
    return {each.field.name: (_type(each), _key(each, partial)) for each in declared}


def first_paragraph(cls: type) -> str:
    """What a class says of itself, for users too."""
    return inspect.cleandoc(cls.__doc__ or "").split("\n\n")[0]


def section_of(hint: Any) -> type | None:
    """The dataclass of a map with settings of its own; it may be left out."""
    kinds = [kind for kind in get_args(hint) or (hint,) if kind is not type(None)]
    found = isinstance(kinds[0], type) and hasattr(kinds[0], "__dataclass_fields__")
    return kinds[0] if found else None


def section(name: str, cls: Callable[..., object]) -> Any:
    """The type of a map that becomes a value of the dataclass ``cls``."""
    assert isinstance(cls, type)
    model = derive(name, first_paragraph(cls), keys_of(settings_of(cls)))
    return Annotated[model, AfterValidator(lambda read: cls(**given(read)))]


def one_or_many(expected: str, none: str | None = None) -> BeforeValidator:
    """A value alone is a list of one; an empty list, a map and nothing at all are refused.

    ``none`` is the word for an empty list.
    """

    def as_list(value: object) -> object:
        if isinstance(value, list) and value:
            return value
        if none is not None and value == none:
            return []
        if not isinstance(value, str):
            got = "an empty list" if isinstance(value, list) else shown(value)
            # The address readers know the one map that is really an address.
            if isinstance(value, dict):
                return [value]
            raise invalid(f"expected {expected}; got {got}")
        return [value]

    return BeforeValidator(as_list)


def _key(declared: Declared, partial: bool) -> Any:
    setting, default = declared.setting, declared.field.default
    more: dict[str, Any] = {}
    if declared.field.default_factory is not MISSING:
        more["default_factory"] = declared.field.default_factory
    elif partial or default is not MISSING:
        more["default"] = () if default is MISSING else default
        more["json_schema_extra"] = _default_shown(declared)
    return Key(description=setting.about, alias=setting.key or None, **more)


def _default_shown(declared: Declared) -> Schema | None:
    """The default as the configuration would write it, where pydantic does not know."""
    values, default = declared.setting.values, declared.field.default
    if isinstance(values, OneOf):
        shown = [word for word, value in values.words.items() if value == default]
        return {"default": shown[0]} if shown else None
    return None


def _type(declared: Declared) -> Any:
    """The type that pydantic reads: the field's, with reader and schema."""
    setting, hint = declared.setting, declared.hint
    if isinstance(setting.values, Form):
        return FORMS[setting.values]
    if get_origin(hint) is tuple:
        reader, schema = _single(get_args(hint)[0], declared)
        return Annotated[
            list[Annotated[Any, PlainValidator(reader)]],
            one_or_many(setting.expected),
            AfterValidator(tuple),
            _one_or_list(schema, setting.distinct),
        ]
    part = section_of(hint)
    if part is not None:
        words = declared.key.split("_")
        whole = section(f"{''.join(map(str.capitalize, words))}Model", part)
        return Annotated[whole, _alone(setting.alone)] if setting.alone else whole
    reader, schema = _single(hint, declared)
    return Annotated[hint, PlainValidator(reader), WithJsonSchema(schema)]


def _alone(key: str) -> BeforeValidator:
    """A value alone stands for a map with that key."""
    return BeforeValidator(lambda value: value if isinstance(value, dict) else {key: value})


def _single(hint: Any, declared: Declared) -> tuple[Any, Schema]:
    """How one value is read, and its schema."""
    values = declared.setting.values
    match values:
        case Integer():
            return int_reader(values), _integer(values)
        case Duration():
            return (read_duration_or_zero, _OR_ZERO) if values.zero else (read_duration, _DURATION)
        case OneOf():
            called = values.called or declared.key
            return word_reader(values.words, called), {"enum": list(values.words)}
    if get_origin(hint) is UnionType and type(None) in get_args(hint):
        hint = next(kind for kind in get_args(hint) if kind is not type(None))
    if hint is bool:
        return read_bool, {"type": "boolean"}
    if hint is str:
        return read_text, _TEXT
    if hint == IPAddress:
        return read_address, _ADDRESS
    if hint is Endpoint:
        return read_endpoint, _LISTENER
    if isinstance(hint, type) and issubclass(hint, StrEnum):
        words = {str(member): member for member in hint}
        return word_reader(words, declared.key), {"enum": list(words)}
    raise TypeError(f"no reader for {declared.field.name}: {hint}")


def _integer(values: Integer) -> Schema:
    schema: Schema = {"type": "integer", "minimum": values.low, "maximum": values.high}
    if values.multiple > 1 and not values.offset:
        schema["multipleOf"] = values.multiple
    return {"anyOf": [schema, {"const": values.never}]} if values.never else schema


def _one_or_list(schema: Schema, distinct: bool) -> WithJsonSchema:
    return WithJsonSchema({"anyOf": _one_or_list_schema(schema, distinct)})


def _one_or_list_schema(schema: Schema, distinct: bool) -> list[Schema]:
    items: Schema = {"type": "array", "items": schema, "minItems": 1}
    if distinct:
        items["uniqueItems"] = True
    return [schema, items]


def _read_headers_map(value: object) -> object:
    if value is None:
        raise invalid("expected a map such as {X-Probe: tula}; got nothing")
    return value


_ADDRESS: Schema = {"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}
_TEXT: Schema = {"type": "string", "minLength": 1, "maxLength": 1024}
_INTERFACE: Schema = {"type": "string", "pattern": f"^{INTERFACE}$"}
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
_LISTENER: Schema = {
    "type": "string",
    "pattern": r"^([0-9.]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}$",
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
_OR_ZERO: Schema = {"anyOf": [{"const": 0}, *_DURATION["anyOf"]]}

Name = Annotated[
    str,
    PlainValidator(read_name),
    WithJsonSchema({"type": "string", "pattern": f"^{NAME}$"}),
]
_BackendAddress = Annotated[IPAddress, PlainValidator(read_backend_address)]
_Address = Annotated[IPAddress, PlainValidator(read_address), WithJsonSchema(_ADDRESS)]
_HeaderName = Annotated[
    str,
    PlainValidator(read_header_name),
    WithJsonSchema({"type": "string", "pattern": f"^{HEADER}$"}),
]
_Text = Annotated[str, PlainValidator(read_text), WithJsonSchema(_TEXT)]
_Interface = Annotated[str, PlainValidator(read_interface), WithJsonSchema(_INTERFACE)]
_AS_NUMBER = Integer(1, (1 << 32) - 1)
_AsNumber = Annotated[
    int, PlainValidator(int_reader(_AS_NUMBER)), WithJsonSchema(_integer(_AS_NUMBER))
]
_MAILBOX: Schema = {"type": "string", "pattern": f"^{MAILBOX}$", "maxLength": 254}
_Mailbox = Annotated[str, PlainValidator(read_mailbox), WithJsonSchema(_MAILBOX)]


def _pairs(values: dict[K, T]) -> tuple[tuple[K, T], ...]:
    return tuple(values.items())


FORMS: dict[Form, Any] = {
    Form.INTERFACE: _Interface,
    Form.INTERFACES: Annotated[list[_Interface], AfterValidator(tuple)],
    Form.ANNOUNCE: Annotated[
        bool | str,
        PlainValidator(read_announce),
        WithJsonSchema({"anyOf": [{"type": "boolean"}, _INTERFACE]}),
    ],
    Form.PORTS: Annotated[
        list[Annotated[PortRange, PlainValidator(read_ports)]],
        BeforeValidator(as_port_list),
        AfterValidator(tuple),
        WithJsonSchema(_PORTS),
    ],
    Form.ADDRESSES_BY_NAME: Annotated[dict[Name, _Address], AfterValidator(_pairs)],
    Form.ROUTERS: Annotated[dict[_Address, _AsNumber], AfterValidator(_pairs)],
    Form.HTTP_PATH: Annotated[
        str,
        PlainValidator(read_http_path),
        WithJsonSchema({"type": "string", "pattern": "^/"}),
    ],
    Form.HTTP_HEADERS: Annotated[
        dict[_HeaderName, _Text], BeforeValidator(_read_headers_map), AfterValidator(_pairs)
    ],
    Form.NAME: Name,
    Form.BACKUP: Annotated[
        int,
        PlainValidator(read_backup),
        WithJsonSchema({"anyOf": [{"type": "boolean"}, _integer(LEVELS)]}),
    ],
    Form.PREFIXES: Annotated[
        list[Annotated[IPNetwork, PlainValidator(read_prefix)]],
        one_or_many("a list of prefixes such as [10.0.0.0/8, 192.0.2.7]"),
        AfterValidator(PrefixList.of),
        _one_or_list({"type": "string", "pattern": "^[0-9a-fA-F.:]+(/[0-9]{1,3})?$"}, False),
    ],
    Form.FILE: Annotated[
        str, PlainValidator(read_file), WithJsonSchema({"type": "string", "pattern": "^/.*[^/]$"})
    ],
    Form.ADDRESS_OR_SELF: Annotated[
        list[_BackendAddress],
        one_or_many("an address, a list of them, or self", SELF),
        AfterValidator(tuple),
        WithJsonSchema({"anyOf": [{"const": SELF}, *_one_or_list_schema(_ADDRESS, True)]}),
    ],
    Form.URL: Annotated[
        str, PlainValidator(read_url), WithJsonSchema({"type": "string", "pattern": f"^{URL}$"})
    ],
    Form.MAILBOX: _Mailbox,
    Form.MAILBOXES: Annotated[
        list[Annotated[str, PlainValidator(read_mailbox)]],
        one_or_many("a mail address such as ops@example.org, or a list of them"),
        AfterValidator(tuple),
        _one_or_list(_MAILBOX, True),
    ],
    Form.HOST_PORT: Annotated[
        str,
        PlainValidator(read_host_port),
        WithJsonSchema({"type": "string", "pattern": f"^{HOST_PORT}$"}),
    ],
}
"""The values that have rules of their own, as pydantic reads them."""
FORMS[Form.RECEIVERS] = Annotated[
    list[section("ReceiverModel", Receiver)],  # type: ignore[misc]
    AfterValidator(lambda receivers: Notifications(tuple(receivers))),
]
