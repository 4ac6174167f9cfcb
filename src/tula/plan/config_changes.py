"""What one configuration says that another did not, in the user's terms, a line each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass

from tula.model.config import Backend, Config, PortRange, VirtualService
from tula.model.notifying import Notifications
from tula.model.persistence import Persistence
from tula.model.prefixes import PrefixList
from tula.model.wording import counted, describe_duration, named
from tula.plan.high_availability_changes import describe_high_availability_changes

_NAMED = 4
"""Backends of one service that came, went or changed are named; of more, the number is told."""
_LONGEST = 40


def describe_config_changes(before: Config | None, after: Config) -> tuple[str, ...]:
    """``+ service web: 2 backends``, ``- service old``, ``~ service dns: + backend b3``.

    Equal configurations, and those that differ only in comments or in order, have none.
    """
    return tuple(_changes(before or Config((), ()), after))


def _changes(before: Config, after: Config) -> Iterator[str]:
    for each in fields(Config):
        if each.name not in ("services", "high_availability", "notify"):
            yield from _setting(each.name, getattr(before, each.name), getattr(after, each.name))
    yield from describe_high_availability_changes(before, after)
    yield from _receivers(before.notify, after.notify)
    old = {service.name: service for service in before.services}
    new = {service.name: service for service in after.services}
    for name, service in new.items():
        if name not in old:
            yield f"+ service {name}: {counted(len(service.backends), 'backend')}"
    for name in (name for name in old if name not in new):
        yield f"- service {name}"
    for name, service in new.items():
        if name in old and old[name] != service:
            yield f"~ service {name}: {', '.join(_service(old[name], service))}"


def _setting(name: str, before: object, after: object) -> Iterator[str]:
    if before == after:
        return
    if is_dataclass(before) and is_dataclass(after):
        for each in fields(before):
            yield from _setting(
                f"{name}.{each.name}", getattr(before, each.name), getattr(after, each.name)
            )
    else:
        yield f"~ {name}: {_from_to(before, after)}"


def _receivers(before: Notifications, after: Notifications) -> Iterator[str]:
    """By their names alone: addresses and headers may be secrets."""
    old, new = dict(before.named), dict(after.named)
    for sign, names in (
        ("+", [name for name in new if name not in old]),
        ("-", [name for name in old if name not in new]),
        ("~", [name for name in new if name in old and old[name] != new[name]]),
    ):
        if names:
            yield f"{sign} notify: {named(names)}"


def _service(before: VirtualService, after: VirtualService) -> Iterator[str]:
    for each in fields(VirtualService):
        if each.name not in ("name", "backends", "shares") and each.compare:
            have, want = getattr(before, each.name), getattr(after, each.name)
            if have != want:
                yield _key(each.name, have, want)
    old = {backend.name: backend for backend in before.backends}
    new = {backend.name: backend for backend in after.backends}
    yield from _named("+", [name for name in new if name not in old])
    yield from _named("-", [name for name in old if name not in new])
    changed = [name for name in new if name in old and old[name] != new[name]]
    if len(changed) > _NAMED:
        yield f"~ {counted(len(changed), 'backend')}"
    else:
        for name in changed:
            yield f"~ backend {name} ({', '.join(_backend(old[name], new[name]))})"


def _key(name: str, before: object, after: object) -> str:
    if name in ("health", "policy"):  # their values may be secrets
        return "health checks"
    if isinstance(before, PrefixList) and isinstance(after, PrefixList):
        return f"{name} {_prefixes(before, after)}"
    return f"{name} {_from_to(before, after)}"


def _prefixes(before: PrefixList, after: PrefixList) -> str:
    """``+ 192.0.2.0/24 - 3 prefixes``."""
    parts = []
    for sign, found in (("+", after.without(before)), ("-", before.without(after))):
        if len(found) > _NAMED:
            parts.append(f"{sign} {counted(len(found), 'prefix', 'prefixes')}")
        else:
            parts += [f"{sign} {prefix}" for prefix in found]
    return " ".join(parts)


def _named(sign: str, names: list[str]) -> Iterator[str]:
    if len(names) > _NAMED:
        yield f"{sign} {counted(len(names), 'backend')}"
    else:
        for name in names:
            yield f"{sign} backend {name}"


def _backend(before: Backend, after: Backend) -> Iterator[str]:
    for each in fields(Backend):
        if each.compare:
            have, want = getattr(before, each.name), getattr(after, each.name)
            if have != want:
                yield f"{each.name} {_from_to(_own(each.name, have), _own(each.name, want))}"


def _own(name: str, value: object) -> object:
    """A backend's value in the words of the configuration."""
    if name == "backup":
        return value or False
    return "the service's" if value is None else value


def _from_to(before: object, after: object) -> str:
    have, want = _text(before), _text(after)
    if len(have) + len(want) > 2 * _LONGEST:
        return "changed"
    return f"{have} → {want}"


def _persistence(value: Persistence) -> str:
    """``5m prefix 24 scope ftp``: the time, and what is not by default."""
    given = [describe_duration(value.timeout)]
    for each in fields(Persistence):
        have = getattr(value, each.name)
        if each.name != "timeout" and have != each.default:
            given.append(f"{each.name} {have}")
    return " ".join(given)


def _text(value: object) -> str:
    if value is None:
        return "none"
    if isinstance(value, Persistence):
        return _persistence(value)
    if isinstance(value, tuple):
        return _list(value)
    if isinstance(value, float):
        return f"{value:g}s"
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _list(values: Iterable[object]) -> str:
    found = list(values)
    if found and all(isinstance(each, PortRange) for each in found):
        return ",".join(map(str, found))
    return ",".join(map(_text, found)) or "none"
