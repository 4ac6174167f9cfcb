"""The configuration's shape: one pydantic model a map, one field a key.

The keys come from the fields of ``tula.model.config`` and ``tula.model.monitor``. Every service
key is optional here, since ``defaults`` may give it; ``service_rules`` asks for what is missing
after merging. Which keys were given, ``model_fields_set`` tells.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, PlainValidator, WithJsonSchema
from pydantic import Field as Key

from tula.config.fields import (
    Declared,
    Name,
    Strict,
    derive,
    first_paragraph,
    given,
    keys_of,
    settings_of,
    value_of,
)
from tula.config.scalars import invalid, word_reader
from tula.model.config import Backend, Config, VirtualService
from tula.model.monitor import PROBES, HealthMonitor, HealthPolicy, Probe

KINDS: dict[str, tuple[str, ...]] = {
    word: tuple(declared.key for declared in settings_of(kind)) for word, kind in PROBES.items()
}
"""The keys of each kind of check, beside those that all have."""

COMMON = frozenset({"type", *(declared.key for declared in settings_of(HealthMonitor))})
"""The keys that every kind takes."""

REQUIRED: dict[str, Declared] = {
    word: declared
    for word, kind in PROBES.items()
    for declared in settings_of(kind)
    if declared.required
}
"""The key that a kind of check cannot do without, where there is one."""


@dataclass(frozen=True, slots=True)
class GivenCheck:
    """A health check that could be read.

    ``keys`` are those given in the check itself. ``monitor`` has those that it shares with others,
    too; None if its type is missing or wrong.
    """

    keys: frozenset[str]
    monitor: HealthMonitor | None


@dataclass(frozen=True, slots=True)
class GivenHealth:
    """What ``health`` gives: one check, or those of ``checks``, and the policy."""

    keys: frozenset[str]
    checks: tuple[GivenCheck, ...]
    policy: HealthPolicy

    @property
    def several(self) -> bool:
        """Whether it has a list of checks."""
        return "checks" in self.keys


def _monitor(values: Mapping[str, Any]) -> HealthMonitor | None:
    kind = PROBES.get(values.get("type", ""))
    if kind is None:
        return None
    own = {key: values[key] for key in KINDS[kind.type] if key in values}
    common = {key: values[key] for key in COMMON & values.keys() if key != "type"}
    build: Callable[..., Probe] = kind
    return HealthMonitor(value_of(build, settings_of(kind), own), **common)


def _check(model: Strict) -> GivenCheck:
    return GivenCheck(frozenset(model.model_fields_set), _monitor(given(model)))


def _health(model: Strict) -> GivenHealth:
    values, keys = given(model), frozenset(model.model_fields_set)
    policy = HealthPolicy(**{name: values[name] for name in keys & _POLICY.keys()})
    if "checks" not in values:
        return GivenHealth(keys, (_check(model),), policy)
    shared = {name: values[name] for name in keys - _POLICY.keys() - {"checks"}}
    checks = tuple(
        GivenCheck(frozenset(check.model_fields_set), _monitor({**shared, **given(check)}))
        for check in values["checks"]
    )
    return GivenHealth(keys, checks, policy)


def _not_null(value: object) -> object:
    if value is None:
        # None is the default below, and would pass for the key left out.
        raise invalid("expected a health check such as {type: tcp}; got nothing")
    return value


def _backends(models: Mapping[str, Strict]) -> tuple[Backend, ...]:
    return tuple(Backend(name, **given(model)) for name, model in models.items())


def _check_settings() -> Iterable[Declared]:
    """The keys of all kinds, each described with the kinds that take it."""
    declared: dict[str, Declared] = {}
    for each in (each for kind in PROBES.values() for each in settings_of(kind)):
        declared.setdefault(each.key, each)
    for key, each in declared.items():
        kinds = ", ".join(kind for kind, keys in KINDS.items() if key in keys)
        about = each.setting.about
        described = f"{kinds}: {about[0].lower()}{about[1:]}"
        yield each._replace(setting=replace(each.setting, about=described))


_TYPE = "The kind of check."
_Kind = Annotated[
    str,
    PlainValidator(word_reader({kind: kind for kind in KINDS}, "type of check")),
    WithJsonSchema({"enum": list(KINDS)}),
]
_POLICY = keys_of(settings_of(HealthPolicy))
_CHECK = keys_of([*settings_of(HealthMonitor), *_check_settings()], partial=True)
_TYPED = {"type": (_Kind, Key(default="", description=_TYPE)), **_CHECK}

BackendModel = derive("BackendModel", first_paragraph(Backend), keys_of(settings_of(Backend)))
CheckModel = derive(
    "CheckModel",
    "One of several health checks; what it does not give, ``health`` gives.",
    _TYPED,
)
MonitorModel = derive(
    "MonitorModel", "A health check.", {"type": (_Kind, Key(description=_TYPE)), **_CHECK}
)
HealthModel = derive(
    "HealthModel",
    "One health check, or several and what they share; and what follows from them.",
    {
        **_TYPED,
        "checks": (
            list[CheckModel],  # type: ignore[valid-type]
            Key(
                default=[],
                description="Several checks; the keys beside are for each that takes them.",
            ),
        ),
        **_POLICY,
    },
)
ServiceModel = derive(
    "ServiceModel",
    first_paragraph(VirtualService),
    {
        **keys_of(settings_of(VirtualService), partial=True),
        "backends": (
            Annotated[dict[Name, BackendModel], AfterValidator(_backends)],  # type: ignore[valid-type]
            Key(default={}, description="The servers, by name."),
        ),
        "health": (
            Annotated[HealthModel | None, AfterValidator(_health), BeforeValidator(_not_null)],
            Key(
                default=None,
                description="One health check or several, and what follows from them.",
            ),
        ),
        "checks": (
            list[Annotated[MonitorModel, AfterValidator(_check)]],  # type: ignore[valid-type]
            Key(default=[], description="Several health checks; as health: {checks: […]}."),
        ),
    },
)
ConfigModel = derive(
    "ConfigModel",
    first_paragraph(Config),
    {
        **keys_of(settings_of(Config), partial=True),
        "defaults": (
            ServiceModel,
            Key(default_factory=ServiceModel, description="Any service keys, for every service."),
        ),
        "services": (
            dict[Name, ServiceModel],  # type: ignore[valid-type]
            Key(default={}, description="The services, by name."),
        ),
    },
)
SERVICE_KEYS: dict[str, str] = {
    name: field.alias or name for name, field in ServiceModel.model_fields.items()
}
"""What the configuration calls each field of a service."""
