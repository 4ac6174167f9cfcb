"""What plan, apply and clear print: a line for each change, and how many services changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tula.cli.common import print_json
from tula.cli.terminal import Screen, screen_of

Steps = Iterable[Mapping[str, Any]]

_SIGNS = {"add": "+", "change": "~", "remove": "-"}
_COLOURS = {"+": "green", "~": "yellow", "-": "red"}
_COUNTED = 10
"""From so many lines on, the last one counts."""
_DONE = {"+": "added", "~": "changed", "-": "removed"}


class Shows(NamedTuple):
    """How changes are shown: as JSON; with the kernel's maps and chains."""

    json: bool
    verbose: bool


def show_changes(
    changed: bool, summary: Sequence[str] | None, steps: Steps, shows: Shows, nothing: str
) -> None:
    """What was or would be done. ``summary`` is in the user's terms, None from an older daemon;
    ``nothing`` is said where nothing changes in the kernel."""
    if shows.json:
        found = {"changed": changed, "summary": list(summary or ()), "steps": list(steps)}
        print_json(found)
        return
    screen = screen_of()
    for line in summary or ():
        _print(line, screen)
    if len(summary or ()) >= _COUNTED:
        _count(summary or ())
    if changed and (shows.verbose or not summary):
        show_steps(steps, screen)
    elif not changed and summary:
        print(f"{nothing} in the kernel")
    elif not changed:
        print(nothing)


def show_steps(steps: Steps, screen: Screen | None = None) -> None:
    """The steps in the kernel's terms, a line each."""
    for step in steps:
        line = f"{_SIGNS[step['verb']]} {step['what']} {step['name']}"
        detail = f"  ({step['detail']})" if step["detail"] else ""
        _print(line + detail, screen or screen_of())


def _print(line: str, screen: Screen) -> None:
    colour = _COLOURS.get(line[:1], "")
    for part in screen.wrap(line, 4):
        print(screen.paint(part, colour))


def _count(summary: Sequence[str]) -> None:
    signs = Counter(line[0] for line in summary if line[2:].startswith("service "))
    told = [f"{signs[sign]:,} {done}" for sign, done in _DONE.items() if signs[sign]]
    if told:
        print("services: " + ", ".join(told))
