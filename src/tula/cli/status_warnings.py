"""The warnings of ``tula status``: bounded, and those that say the same of many as one."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from tula.cli.terminal import Screen
from tula.engine.summary import names, when

_SHOWN = 5
"""Warnings that are told; the rest is a number."""
_DIFFERS = re.compile(
    r"services\.[^.:]+(\.backends\.[^.:]+)?|\b\d+\.\d+\.\d+\.\d+\b|\b[0-9a-f]*:[0-9a-f:]+\b"
)
"""A service or backend, and addresses."""


def warning_lines(answer: Mapping[str, Any], screen: Screen | None = None) -> list[str]:
    """What the operator must see first; all of them, one line each, without a screen."""
    if screen is None:
        return [f"WARNING: {line}" for line in _warnings(answer)]
    lines = [f"WARNING: {line}" for line in _together(_warnings(answer))]
    shown, more = lines[:_SHOWN], len(lines) - _SHOWN
    if more > 0:
        shown.append(f"WARNING: and {more} more; tula status --problems shows them all")
    # Wrapped and not cut: how to go on stands at the end.
    return [screen.paint(each, "red") for line in shown for each in screen.wrap(line, indent=2)]


def _warnings(answer: Mapping[str, Any]) -> Iterator[str]:
    daemon = answer["daemon"]
    cycle = None if daemon is None else daemon["last_cycle"]
    if daemon is not None:
        configuration = daemon["configuration"]
        refused = configuration["refused"]
        if refused is not None:
            yield (
                f"{configuration['path']} has been refused since {when(refused['since'])}: "
                f"{_problem(refused['problems'])}; the previous configuration still runs"
            )
        accepted = answer.get("configuration") or {}
        if refused is None and accepted.get("file_differs_since") is not None:
            since = when(accepted["file_differs_since"])
            yield (
                f"{accepted['file']} differs from what runs (since {since}); tula plan shows how, "
                "tula reload accepts it"
            )
        if accepted.get("confirm_until") is not None:
            until = when(accepted["confirm_until"])
            where = " --everywhere" if accepted.get("confirm_everywhere") else ""
            yield f"the configuration goes back at {until} unless you run tula confirm{where}"
    yield from answer["problems"]
    for each in answer.get("bgp", ()):  # an older daemon has none
        if each["state"] != "Established":
            reason = f": {each['error']}" if each["error"] else ""
            yield f"no BGP session with {each['router']} (AS {each['as']}){reason}"
    if cycle is not None and cycle["error"]:
        yield f"updating the kernel failed at {when(cycle['time'])}: {cycle['error']}"
    panics = [service["name"] for service in answer["services"] if service["panic"]]
    if panics:
        yield f"{names(panics)}: too few backends are up, so all of them serve (panic)"


def _together(warnings: Iterable[str]) -> Iterator[str]:
    """Those that differ only in names and addresses become one."""
    alike: dict[str, list[str]] = {}
    for warning in warnings:
        alike.setdefault(_DIFFERS.sub("*", warning), []).append(warning)
    for first, *others in alike.values():
        yield f"{len(others) + 1} times, first: {first}" if others else first


def _problem(problems: list[dict[str, Any]]) -> str:
    """The first problem, and how many more there are."""
    if not problems:
        return "it cannot be read"
    first, *rest = problems
    where = "" if first["line"] is None else f"{first['line']}:{first['column']}: "
    path = f"{first['path']}: " if first["path"] else ""
    more = f" (and {len(rest)} more)" if rest else ""
    return f"{where}{path}{first['message']}{more}"
