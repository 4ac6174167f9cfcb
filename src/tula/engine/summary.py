"""The first line of ``tula status``: whether all serves, and if not, what is wrong. Pure.

Made from the object of ``tula status --json``, so that a client can make it of a part of the
services, too.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from tula.model.wording import counted

_NAMED = 3
"""Services that are named; the rest is a number."""

Json = Mapping[str, Any]


class Grade(StrEnum):
    """How a part of the line is to be read."""

    GOOD = "good"
    NOTE = "note"
    """nothing is wrong, but somebody may not know it"""
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class Part:
    """A part of the line."""

    grade: Grade
    text: str


@dataclass(frozen=True, slots=True)
class Summary:
    """The line in parts, the worst not first: the order is always the same."""

    parts: tuple[Part, ...]

    @property
    def fine(self) -> bool:
        """Whether all serves: nothing is down, and the kernel is in sync."""
        return all(part.grade is not Grade.BAD for part in self.parts)

    @property
    def word(self) -> str:
        """``OK`` or ``PROBLEM``, which the line begins with."""
        return "OK" if self.fine else "PROBLEM"

    @property
    def text(self) -> str:
        """The line."""
        return f"{self.word}: " + "; ".join(part.text for part in self.parts)


def summarize(answer: Json) -> Summary:
    """The summary of a status."""
    services, kernel = answer["services"], answer["kernel"]
    forwards = kernel.get("forwards", True)
    parts = [_daemon(answer), _kernel(kernel), *_interfaces(kernel)]
    if services:
        parts += [_services(services, forwards), _backends(services, forwards)]
    else:
        parts.append(Part(Grade.NOTE, "no services are configured, so nothing is served"))
    parts += [*_panics(services), *_on_backups(services)]
    parts += _peers(answer)
    unchecked = [s["name"] for s in services if not s.get("checked", True)]
    if unchecked and answer["daemon"] is not None:
        parts.append(Part(Grade.NOTE, f"not checked: {names(unchecked)}"))
    problems = answer.get("problems", ())
    # Interfaces have a part of their own; what else is said of one (its MTU) stops nothing.
    others = [line for line in problems if not line.startswith("interfaces[")]
    if others:
        parts.append(Part(Grade.BAD, counted(len(others), "other problem")))
    if len(others) < len(problems):
        parts.append(Part(Grade.NOTE, counted(len(problems) - len(others), "warning")))
    return Summary(tuple(parts))


def serves(backend: Json) -> bool:
    """Whether a backend gets new connections, as far as is known."""
    return bool(backend["effective_weight"])


def stands_by(backend: Json) -> bool:
    """Whether it could serve, and others do."""
    return not serves(backend) and backend["state"] in ("up", "unknown")


def _daemon(answer: Json) -> Part:
    daemon = answer["daemon"]
    if daemon is not None:
        return Part(Grade.GOOD, f"daemon up since {when(daemon['started'])}")
    wanted = [service["name"] for service in answer["services"] if service.get("checked")]
    if wanted:
        return Part(Grade.BAD, f"no daemon runs, so nothing checks {names(wanted)}")
    return Part(Grade.NOTE, "no daemon runs, and nothing is checked")


def _kernel(kernel: Json) -> Part:
    if kernel["in_sync"]:
        return Part(Grade.GOOD, "kernel in sync")
    differences: Sequence[str] = kernel["differences"]
    first = differences[0] if differences else "not compared yet"
    more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
    return Part(Grade.BAD, f"kernel out of sync: {first}{more}")


def _interfaces(kernel: Json) -> Iterable[Part]:
    for name, state in (kernel.get("interfaces") or {}).items():
        if state != "up":
            how = {"no carrier": "has no carrier"}.get(state, f"is {state}")
            yield Part(Grade.BAD, f"interface {name} {how}")


def _services(services: Sequence[Json], forwards: bool) -> Part:
    total = len(services)
    if not forwards:
        return Part(Grade.BAD, f"none of {counted(total, 'service')} up")
    silent = [service for service in services if not any(map(serves, service["backends"]))]
    if not silent:
        return Part(Grade.GOOD, f"{counted(total, 'service')} up")
    reasons: dict[str, list[str]] = {}
    for service in silent:
        reasons.setdefault(why_silent(service), []).append(service["name"])
    told = ", ".join(f"{names(which)} ({why})" for why, which in reasons.items())
    up = total - len(silent)
    return Part(Grade.BAD, f"{up} of {counted(total, 'service')} up, down: {told}")


def why_silent(service: Json) -> str:
    """Why none of its backends gets new connections."""
    states = {backend["state"] for backend in service["backends"]}
    if not states:
        return "no backends"
    able = [backend for backend in service["backends"] if stands_by(backend)]
    if able:
        least = service.get("minimum", 1)
        return f"{len(able)} of {least} needed can serve"
    if len(states) == 1:
        return f"all backends {_STATES.get(min(states), 'have weight 0')}"
    return "no backend serves"


_STATES = {"down": "down", "draining": "drained", "disabled": "disabled"}


def _backends(services: Sequence[Json], forwards: bool) -> Part:
    states = [backend["state"] for service in services for backend in service["backends"]]
    total, up = len(states), states.count("up")
    if not forwards:
        return Part(Grade.BAD, f"none of {counted(total, 'backend')} gets packets")
    if up == total:
        return Part(Grade.GOOD, f"{counted(total, 'backend')} up")
    rest = {state: states.count(state) for state in ("down", "draining", "disabled", "unknown")}
    told = [f"{count} {_SHOWN.get(state, state)}" for state, count in rest.items() if count]
    grade = Grade.BAD if rest["down"] else Grade.NOTE
    if rest["unknown"] == total:
        return Part(grade, f"{counted(total, 'backend')}, not checked")
    return Part(grade, f"{up} of {counted(total, 'backend')} up, {', '.join(told)}")


_SHOWN = {"unknown": "not checked"}


def _panics(services: Sequence[Json]) -> Iterable[Part]:
    panics = [service["name"] for service in services if service.get("panic")]
    if panics:
        yield Part(Grade.BAD, f"panic, all backends serve: {names(panics)}")


def _on_backups(services: Sequence[Json]) -> Iterable[Part]:
    """They serve, so this alone is no problem: what made it so may be one, or an operator."""
    found = [service["name"] for service in services if service.get("on_backups")]
    if found:
        yield Part(Grade.NOTE, f"served by backups: {names(found)}")


def _peers(answer: Json) -> Iterable[Part]:
    """The role, and what of the other balancers somebody must see to."""
    peers, role = answer.get("peers") or (), answer.get("role")
    if role is not None:
        kind = Grade.NOTE if answer.get("standby") else Grade.GOOD
        yield Part(kind, "standby by tula standby" if answer.get("standby") else role)
    well = [peer["name"] for peer in peers if peer["alive"]]
    for peer in peers:
        name = peer["name"]
        if not peer["added"]:
            yield Part(Grade.NOTE, f"{name} is not asked: tula peer add {name}")
        elif not peer["alive"]:
            since = peer["since"]
            yield Part(
                Grade.BAD if since is not None else Grade.NOTE,
                f"{name} is not heard" + ("" if since is None else f" since {when(since)}"),
            )
            continue
        if peer["configuration_equal"] is False:
            yield Part(Grade.BAD, f"{name} runs another configuration")
        if peer["overrides_equal"] is False:
            yield Part(Grade.BAD, f"{name} has other overrides")
    if well and len(well) == len(peers):
        yield Part(Grade.GOOD, f"{names(well)} {'answers' if len(well) == 1 else 'answer'}")


def names(which: Sequence[str]) -> str:
    """Some names, and how many more there are."""
    shown, more = ", ".join(which[:_NAMED]), len(which) - _NAMED
    return f"{shown} and {more} more" if more > 0 else shown


def when(seconds: float) -> str:
    """A time for people, in this machine's time zone."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
