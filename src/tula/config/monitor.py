"""Health monitors: their keys, which kind takes which, and the model's values."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, PlainValidator, WithJsonSchema

from tula.config.fields import (
    Bool,
    Duration,
    DurationOrZero,
    Strict,
    Text,
    integer,
    one_or_many,
    word,
)
from tula.config.scalars import fault, read_int, read_text
from tula.config.shown import shown
from tula.config.tree import Plain
from tula.model.config import HealthMonitor, HealthPolicy

KINDS: dict[str, tuple[str, ...]] = {
    "tcp": ("port", "send", "expect"),
    "http": ("port", "path", "host", "headers", "status", "body"),
    "https": ("port", "path", "host", "headers", "status", "body", "verify", "expires_within"),
    "udp": ("port", "send", "expect"),
    "dns": ("port", "name", "record"),
    "icmp": (),
    "script": ("command",),
}
"""The keys of each kind, beside those that all have."""

_RECORDS = ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT")
_HEADER = "[A-Za-z0-9!#$%&'*+.^_`|~-]+"
_HEADERS_OF_OURS = ("connection", "content-length", "host", "transfer-encoding", "accept-encoding")
NEVER = "never"


def _read_path(value: object) -> str:
    text = read_text(value)
    if not text.startswith("/"):
        raise fault(f"{shown(value)} does not start with /; write {shown('/' + text)}")
    if " " in text or not text.isascii():
        raise fault(f"{shown(value)} has to be percent-encoded; write %20 for a space")
    return text


def _read_status(value: object) -> int:
    return read_int(value, 100, 599)


def _read_header(value: object) -> str:
    text = read_text(value)
    if not re.fullmatch(_HEADER, text):
        raise fault(f"{shown(value)} is no name of a header; give one such as X-Probe")
    if text.lower() == "host":
        raise fault("the Host header has a key of its own; give host")
    if text.lower() in _HEADERS_OF_OURS:
        raise fault(f"the header {shown(value)} is the check's own; leave it out")
    return text


def _read_panic(value: object) -> int | None:
    if isinstance(value, Plain) and value == NEVER:
        return None
    if isinstance(value, str) and value.endswith("%") and value[:-1].isdecimal():
        raise fault(f"{shown(value)}: write the percentage without %")
    if not isinstance(value, Plain) or not re.fullmatch(r"[+-]?[0-9]+", value):
        raise fault(f"expected a percentage, 0 to 100, or never; got {shown(value)}")
    return read_int(value, 0, 100)


def _given(value: object) -> object:
    if value is None:
        # None is the default of the key left out, and would pass for it.
        raise fault("expected a map such as {X-Probe: tula}; got nothing")
    return value


_STATUS = {"type": "integer", "minimum": 100, "maximum": 599}
_Kind = Annotated[str, *word(tuple(KINDS), "type of check")]
_Path = Annotated[
    str, PlainValidator(_read_path), WithJsonSchema({"type": "string", "pattern": "^/"})
]
_Statuses = Annotated[
    list[Annotated[int, PlainValidator(_read_status)]],
    one_or_many("an HTTP status or a list of them"),
    WithJsonSchema({"anyOf": [_STATUS, {"type": "array", "items": _STATUS, "minItems": 1}]}),
]
_HeaderName = Annotated[
    str,
    PlainValidator(_read_header),
    WithJsonSchema({"type": "string", "pattern": f"^{_HEADER}$"}),
]
_Headers = Annotated[dict[_HeaderName, Text], BeforeValidator(_given)]
_Command = Annotated[
    list[Text],
    one_or_many("a program or [program, argument]"),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ]
        }
    ),
]
_Count = Annotated[int, *integer(1, 1000)]
_Port = Annotated[int, *integer(1, 65535)]
_Panic = Annotated[
    int | None,
    PlainValidator(_read_panic),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 0, "maximum": 100}, {"const": NEVER}]}
    ),
]


class CheckModel(Strict):
    """One of several health checks; what it does not give, ``health`` gives."""

    type: _Kind = Field(default="", description="The kind of check.")
    interval: Duration = Field(default=2.0, description="Time from one check to the next.")
    fast_interval: Duration = Field(
        default=0.0,
        description="The interval while the state is about to change, and until it is known.",
    )
    timeout: Duration = Field(default=1.0, description="How long an answer is waited for.")
    rise: _Count = Field(default=2, description="Consecutive passes before a backend is up.")
    fall: _Count = Field(default=3, description="Consecutive failures before a backend is down.")
    via: Annotated[str, *word(("dsr", "direct"), "way")] = Field(
        default="dsr",
        description="dsr: to the VIP, through the data path; direct: to the backend's address.",
    )
    port: _Port = Field(
        default=0,
        description="Another port than the service's first; with via: dsr one of the service's.",
    )
    path: _Path = Field(default="/", description="http, https: what is asked for.")
    host: Text = Field(default="", description="http, https: the Host header, and the TLS name.")
    headers: _Headers = Field(default={}, description="http, https: more headers, by name.")
    status: _Statuses = Field(
        default=[], description="http, https: the status that passes; without, 200 to 399."
    )
    body: Text = Field(default="", description="http, https: text that the answer must hold.")
    verify: Bool = Field(
        default=False, description="https: whether the certificate must be valid for the name."
    )
    expires_within: Duration = Field(
        default=1209600.0, description="https: a certificate that ends sooner is warned of."
    )
    name: Text = Field(default="", description="dns: the name asked for.")
    record: Annotated[str, *word(_RECORDS, "record type")] = Field(
        default="A", description="dns: the record asked for."
    )
    send: Text = Field(default="", description="tcp, udp: what is sent.")
    expect: Text = Field(default="", description="tcp, udp: text that the answer must hold.")
    command: _Command = Field(default=[], description="script: the program and its arguments.")


class MonitorModel(CheckModel):
    """A health check."""

    type: _Kind = Field(description="The kind of check.")


class HealthModel(CheckModel):
    """One health check, or several and what they share; and what follows from them."""

    checks: list[CheckModel] = Field(
        default=[], description="Several checks; the keys beside are for each that takes them."
    )
    require: Annotated[str, *word(("all", "any"), "require")] = Field(
        default="all", description="Whether all checks must pass, or any one."
    )
    slow_start: DurationOrZero = Field(
        default=0.0, description="How long the weight of a backend that came up rises."
    )
    panic_threshold: _Panic = Field(
        default=0,
        description="When this percentage of the weight or less is up, all backends serve; never: "
        "those that are down get nothing, even when all are.",
    )


_POLICY = ("checks", "require", "slow_start", "panic_threshold")


def merged_checks(health: HealthModel) -> list[CheckModel]:
    """The checks of a service's ``health``, each with the keys beside that it takes."""
    if "checks" not in health.model_fields_set:
        return [health]
    shared = health.model_fields_set.difference(_POLICY)
    return [_merge(check, health, shared) for check in health.checks]


def _merge(check: CheckModel, health: HealthModel, shared: set[str]) -> CheckModel:
    given = check.model_fields_set
    kind = check.type or health.type
    own = {*KINDS.get(kind, ()), *COMMON}
    beside = {key: getattr(health, key) for key in shared - given if key in own}
    return CheckModel.model_construct(**{key: getattr(check, key) for key in given}, **beside)


COMMON = frozenset(CheckModel.model_fields).difference(*KINDS.values())
"""The keys that every kind takes."""


def monitor_value(monitor: CheckModel) -> HealthMonitor:
    """The model's value; what is special to the kind, apart from the path, is in ``extra``."""
    own = [key for key in KINDS[monitor.type] if key != "path"]
    given = {key: getattr(monitor, key) for key in own if key in monitor.model_fields_set}
    extra = {key: _frozen(value) for key, value in given.items()}
    return HealthMonitor(
        type=monitor.type,
        interval=monitor.interval,
        timeout=monitor.timeout,
        rise=monitor.rise,
        fall=monitor.fall,
        via=monitor.via,
        path=monitor.path if "path" in KINDS[monitor.type] else None,
        extra=tuple(sorted(extra.items())),
        fast_interval=monitor.fast_interval or None,
    )


def _frozen(value: object) -> object:
    if isinstance(value, dict):
        return tuple(value.items())
    return tuple(value) if isinstance(value, list) else value


def policy_value(health: HealthModel | None) -> HealthPolicy:
    """What the service makes of its checks; the usual without ``health``."""
    if health is None:
        return HealthPolicy()
    return HealthPolicy(
        require_all=health.require == "all",
        slow_start=health.slow_start,
        panic=health.panic_threshold,
    )
