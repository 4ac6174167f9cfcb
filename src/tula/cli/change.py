"""``tula plan``, ``apply``, ``reload`` and ``clear``: what changes the kernel."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli.common import (
    DIFFERENT,
    FAILED,
    RUN_DIR,
    STATE_DIR,
    WRONG,
    Force,
    Json,
    MaybeFile,
    RunDir,
    StateDir,
    config_of,
    errors,
    fail,
    open_balancer,
    open_store,
    print_json,
    problems,
    warn,
)
from tula.cli.daemon import daemon_errors, daemon_of, placed, require_daemon

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tula.cli.client import Client
    from tula.engine.change import Change

_SIGNS = {"add": "+", "change": "~", "remove": "-"}


def plan(
    file: MaybeFile = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 3 when apply would change something.")
    ] = False,
    force: Force = False,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Show what apply would change in the kernel; change nothing."""
    daemon = daemon_of(run_dir)
    if daemon is not None:
        changed = _plan_by(daemon, file, force, json)
        if changed and exit_code:
            raise typer.Exit(DIFFERENT)
        return
    store = open_store(state_dir)
    name, configuration = config_of(file, store)
    warn(name, configuration)
    with errors(), problems(name, configuration):
        change = open_balancer(store).plan(
            configuration.config, configuration.source.encode(), force=force
        )
    warn(name, configuration, change.warnings)
    _show(change, json, "nothing to change")
    if change and exit_code:
        raise typer.Exit(DIFFERENT)


def apply(
    file: MaybeFile = None,
    force: Force = False,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Bring the kernel to the configuration in one atomic step, by the daemon if one runs.

    The daemon runs one file, so with -f this must be what that file holds.
    """
    daemon = daemon_of(run_dir, state_dir)
    if daemon is not None:
        source = None if file is None else _read(file)
        _apply_by(daemon, source, force, json, str(file) if file is not None else None)
        return
    store = open_store(state_dir)
    name, configuration = config_of(file, store)
    warn(name, configuration)
    balancer = open_balancer(store)
    with errors(), problems(name, configuration):
        outcome = balancer.apply(configuration.config, configuration.source.encode(), force=force)
    warn(name, configuration, outcome.change.warnings)
    for warning in (*outcome.warnings, *balancer.announce_again()):
        print(f"warning: {warning}; run tula apply again", file=sys.stderr)
    if outcome.unsaved:
        print(f"warning: not remembered on disk: {outcome.unsaved}", file=sys.stderr)
    _show(outcome.change, json, "nothing changed")


def reload(
    force: Force = False,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Have the daemon read its configuration again; if refused, the old one goes on."""
    _apply_by(require_daemon(run_dir), None, force, json, None)


def clear(
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Remove from the kernel everything that tula made, and nothing else."""
    daemon = daemon_of(run_dir, state_dir)
    if daemon is not None:
        fail(
            FAILED,
            f"tula: the daemon that listens on {daemon.path} would restore it all; "
            "stop it first: systemctl stop tula",
        )
    with errors():
        change = open_balancer(open_store(state_dir)).clear()
    _show(change, json, "nothing to remove")


def _read(file: Path) -> bytes:
    """The file's content for the daemon, which parses it and names its problems."""
    from codecs import BOM_UTF8

    from tula.config.errors import BrokenError
    from tula.config.source import read_bytes

    try:
        return read_bytes(file).removeprefix(BOM_UTF8)
    except BrokenError as error:
        fail(WRONG, f"{file}: {error.message}")


def _plan_by(daemon: Client, file: Path | None, force: bool, json: bool) -> bool:
    """Has the daemon compare, which knows the backends' health; whether anything would change."""
    source = None if file is None else _read(file)

    def name() -> str:
        return str(file or "the running configuration")

    with daemon_errors(name):
        outcome = daemon.plan(source, force)
    if source is not None:
        _warn(outcome, name)
    show_steps(outcome["changed"], outcome["steps"], json, "nothing to change")
    return bool(outcome["changed"])


def _apply_by(
    daemon: Client, source: bytes | None, force: bool, json: bool, file: str | None
) -> None:
    """Has the daemon apply its file, and shows what it did; ``file`` is the user's name for it."""

    def name() -> str:
        if file is not None:
            return file
        with daemon_errors():
            return str(daemon.get("/status")["daemon"]["configuration"]["path"])

    with daemon_errors(name):
        outcome = daemon.apply(source, force)
    _warn(outcome, name)
    show_steps(outcome["changed"], outcome["steps"], json, "nothing changed")


def _warn(outcome: dict[str, Any], name: Callable[[], str]) -> None:
    """Prints the warnings; ``name`` tells what the configuration's file is called."""
    if outcome["warnings"]:
        told = name()
        for warning in outcome["warnings"]:
            print("warning: " + placed(warning).describe(told), file=sys.stderr)


def _show(change: Change, json: bool, nothing: str) -> None:
    from tula.engine.steps import describe_steps

    show_steps(bool(change), describe_steps(change), json, nothing)


def show_steps(changed: bool, steps: Iterable[dict[str, Any]], as_json: bool, nothing: str) -> None:
    """What was or would be done, a line each, or ``nothing``."""
    if as_json:
        print_json({"changed": changed, "steps": list(steps)})
    elif not changed:
        print(nothing)
    else:
        for step in steps:
            line = f"{_SIGNS[step['verb']]} {step['what']} {step['name']}"
            print(f"{line}  ({step['detail']})" if step["detail"] else line)
