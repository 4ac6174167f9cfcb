"""``--everywhere``: a change on all balancers, told by machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import typer

from tula.cli.common import FAILED, WRONG, fail, print_json
from tula.cli.daemon import daemon_errors, insist, placed
from tula.cli.override_text import describe_override

Everywhere = Annotated[
    bool,
    typer.Option("--everywhere", help="On all load_balancers, or on none."),
]
Reachable = Annotated[
    bool,
    typer.Option("--reachable", help="With --everywhere: go on without those that are away."),
]
JsonToo = Annotated[bool, typer.Option("--json", help="With --everywhere: print JSON.")]


def only_everywhere(everywhere: bool, **given: bool) -> None:
    """Ends a command whose options mean something only with ``--everywhere``."""
    for name, value in given.items():
        if value and not everywhere:
            fail(WRONG, f"tula: --{name} goes with --everywhere")


def change_everywhere(
    ask: Callable[[bool], dict[str, Any]],
    yes: bool,
    *,
    as_json: bool,
    line: Callable[[Mapping[str, Any], Mapping[str, Any]], str],
    repair: str,
    name: Callable[[], str] | None = None,
) -> dict[str, Any]:
    """Asks for a change, and tells how each machine stands; exit status 1 where something is left
    to be done. ``line`` is about a machine where it was done, ``repair`` the command that does the
    rest; ``name`` tells what the configuration's file is called."""
    with daemon_errors(name):
        answer = insist(ask, yes)
    if as_json:
        print_json(answer)
    else:
        _warn(answer, name)
        for machine in answer["machines"]:
            print(f"{machine['machine']}: {_told(machine, answer, line)}")
    if not answer["done"]:
        if not as_json:
            print(f"tula: not done on all; {repair}", file=sys.stderr)
        raise typer.Exit(FAILED)
    return answer


def _warn(answer: Mapping[str, Any], name: Callable[[], str] | None) -> None:
    """Once each, with the machines that have it if those are not all."""
    found: dict[str, list[str]] = {}
    for machine in answer["machines"]:
        for warning in machine["warnings"]:
            told = placed(warning).describe(name() if name is not None else "")
            found.setdefault(told, []).append(str(machine["machine"]))
    for told, machines in found.items():
        where = "" if len(machines) == len(answer["machines"]) else f"{', '.join(machines)}: "
        print(f"warning: {where}{told}", file=sys.stderr)


def _told(
    machine: Mapping[str, Any],
    answer: Mapping[str, Any],
    line: Callable[[Mapping[str, Any], Mapping[str, Any]], str],
) -> str:
    why = "; ".join(str(error["message"]) for error in machine["errors"])
    result = machine["result"]
    if result in ("done", "would", "waits"):
        return line(machine, answer)
    if result == "pending":
        return f"has not confirmed it, and gets it when it is back: {why}"
    if result == "left-out":
        return f"left out: {why}"
    if result == "taken-back":
        return "has taken it back"
    return f"{result}: {why}" if why else str(result)


def configuration_line(machine: Mapping[str, Any], answer: Mapping[str, Any]) -> str:
    """Of a machine that has the configuration."""
    digest = answer["digest"][:12]
    if machine["result"] == "would":
        return f"would take configuration {digest}"
    waits = ", and waits for confirmation" if machine["result"] == "waits" else ""
    return f"configuration {digest} runs{waits}"


def override_line(
    verb: str, target: str, deadline: str | None, weight: int | None
) -> Callable[[Mapping[str, Any], Mapping[str, Any]], str]:
    """Of a machine whose backend was changed."""

    def line(machine: Mapping[str, Any], _: Mapping[str, Any]) -> str:
        after = {**machine["backend"]["after"], "overrides": [], "reason": ""}
        text = describe_override(verb, None, after, deadline=deadline, weight=weight)
        return f"{target}: {text}"

    return line


def tell_waiting(seconds: float) -> None:
    """What comes after a configuration that waits on all."""
    text = f"all go back in {seconds:g}s unless you run tula confirm --everywhere"
    print(text, file=sys.stderr)
