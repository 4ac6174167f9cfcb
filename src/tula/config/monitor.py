"""Health monitors: their keys, which kind takes which, and the model's value."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated

from pydantic import Field, PlainValidator, WithJsonSchema

from tula.config.fields import Duration, Strict, Text, integer, one_or_many
from tula.config.scalars import fault, read_int, read_text
from tula.config.shown import choices, meant, shown
from tula.config.tree import Positions
from tula.model.config import HealthMonitor
from tula.model.problem import Path, Problem

_KINDS: dict[str, tuple[str, ...]] = {
    "tcp": ("port", "send", "expect"),
    "http": ("port", "path", "host", "status", "body"),
    "https": ("port", "path", "host", "status", "body"),
    "udp": ("port", "send", "expect"),
    "dns": ("port", "name", "record"),
    "icmp": (),
    "script": ("command",),
}
"""The keys of each kind, beside those that all have."""

_NEEDED = {"dns": ("name", "such as example.org"), "script": ("command", "such as [/bin/check]")}
_RECORDS = ("A", "AAAA", "CNAME", "MX", "NS", "PTR", "SOA", "SRV", "TXT")
_VIA = ("dsr", "direct")


def _one_of(known: tuple[str, ...], key: str) -> tuple[PlainValidator, WithJsonSchema]:
    def read(value: object) -> str:
        if isinstance(value, str) and value in known:
            return str(value)
        near = meant(value, known) if isinstance(value, str) else None
        mend = f"did you mean {near}?" if near else f"give {choices(known)}"
        raise fault(f"unknown {key} {shown(value)}; {mend}")

    return PlainValidator(read), WithJsonSchema({"enum": list(known)})


def _read_path(value: object) -> str:
    text = read_text(value)
    if not text.startswith("/"):
        raise fault(f"{shown(value)} does not start with /; write {shown('/' + text)}")
    if " " in text or not text.isascii():
        raise fault(f"{shown(value)} has to be percent-encoded; write %20 for a space")
    return text


def _read_status(value: object) -> int:
    return read_int(value, 100, 599)


_STATUS = {"type": "integer", "minimum": 100, "maximum": 599}
_Kind = Annotated[str, *_one_of(tuple(_KINDS), "type of check")]
_Path = Annotated[
    str, PlainValidator(_read_path), WithJsonSchema({"type": "string", "pattern": "^/"})
]
_Statuses = Annotated[
    list[Annotated[int, PlainValidator(_read_status)]],
    one_or_many("an HTTP status or a list of them"),
    WithJsonSchema({"anyOf": [_STATUS, {"type": "array", "items": _STATUS, "minItems": 1}]}),
]
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


class MonitorModel(Strict):
    """A health check."""

    type: _Kind = Field(description="The kind of check.")
    interval: Duration = Field(default=2.0, description="Time from one check to the next.")
    timeout: Duration = Field(default=1.0, description="How long an answer is waited for.")
    rise: _Count = Field(default=2, description="Consecutive passes before a backend is up.")
    fall: _Count = Field(default=3, description="Consecutive failures before a backend is down.")
    via: Annotated[str, *_one_of(_VIA, "way")] = Field(
        default="dsr",
        description="dsr: to the VIP, through the data path; direct: to the backend's address.",
    )
    port: _Port = Field(default=0, description="Another port than the service's; with via: direct.")
    path: _Path = Field(default="/", description="http, https: what is asked for.")
    host: Text = Field(default="", description="http, https: the Host header, and the TLS name.")
    status: _Statuses = Field(default=[], description="http, https: the status that passes.")
    body: Text = Field(default="", description="http, https: text that the answer must hold.")
    name: Text = Field(default="", description="dns: the name asked for.")
    record: Annotated[str, *_one_of(_RECORDS, "record type")] = Field(
        default="A", description="dns: the record asked for."
    )
    send: Text = Field(default="", description="tcp, udp: what is sent.")
    expect: Text = Field(default="", description="tcp, udp: text that the answer must hold.")
    command: _Command = Field(default=[], description="script: the program and its arguments.")


def monitor_problems(monitor: MonitorModel, path: Path, positions: Positions) -> Iterator[Problem]:
    """Keys that the kind does not take, or needs; ``path`` is the monitor's."""
    own = _KINDS[monitor.type]
    for key in sorted(monitor.model_fields_set):
        kinds = [kind for kind, keys in _KINDS.items() if key in keys]
        if kinds and key not in own:
            message = f"a check of type {monitor.type} has no {key!r}; it is for {choices(kinds)}"
            yield Problem((*path, key), message, on_key=True)
    if "port" in monitor.model_fields_set and "port" in own and monitor.via != "direct":
        message = "needs via: direct; through the VIP a check goes to the service's own port"
        yield Problem((*path, "port"), message, on_key=True)
    key, example = _NEEDED.get(monitor.type, ("", ""))
    # Asked of the document: a name that is given and faulty has its own problem.
    if key and not positions.has((*path, key)):
        message = f"a check of type {monitor.type} needs {key!r}; give one {example}"
        yield Problem(path, message, on_key=True)


def monitor_value(monitor: MonitorModel) -> HealthMonitor:
    """The model's value; what is special to the kind, apart from the path, is in ``extra``."""
    own = [key for key in _KINDS[monitor.type] if key != "path"]
    given = {key: getattr(monitor, key) for key in own if key in monitor.model_fields_set}
    extra = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items()}
    return HealthMonitor(
        type=monitor.type,
        interval=monitor.interval,
        timeout=monitor.timeout,
        rise=monitor.rise,
        fall=monitor.fall,
        via=monitor.via,
        path=monitor.path if "path" in _KINDS[monitor.type] else None,
        extra=tuple(sorted(extra.items())),
    )
