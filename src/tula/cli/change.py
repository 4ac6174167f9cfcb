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
    Force,
    Json,
    MaybeFile,
    RunDir,
    StateDir,
    document_of,
    errors,
    fail,
    open_balancer,
    open_store,
    print_json,
    problems,
    read_document,
    warn,
)
from tula.cli.daemon import daemon_errors, daemon_of, placed, require_daemon

if TYPE_CHECKING:
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
    name, document = document_of(file, store)
    warn(name, document)
    with errors(), problems(name, document):
        change = open_balancer(store).plan(document.config, document.source.encode(), force=force)
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
    """Bring the kernel to the document in one atomic step; a daemon that runs does it itself.

    The daemon runs one file, so with -f this must be what that file holds.
    """
    daemon = daemon_of(run_dir, state_dir)
    if daemon is not None:
        source = None
        if file is not None:
            document = read_document(file)
            warn(str(file), document)
            source = document.source.encode()
        _apply_by(daemon, source, force, json, str(file) if file is not None else None)
        return
    store = open_store(state_dir)
    name, document = document_of(file, store)
    warn(name, document)
    balancer = open_balancer(store)
    with errors(), problems(name, document):
        outcome = balancer.apply(document.config, document.source.encode(), force=force)
    for warning in outcome.warnings:
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
    """Have the daemon read its document again; the old one goes on when it is refused."""
    _apply_by(require_daemon(run_dir), None, force, json, None)


def clear(
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Remove from the kernel all that tula made, and nothing else."""
    daemon = daemon_of(run_dir, state_dir)
    if daemon is not None:
        fail(
            FAILED,
            f"tula: the daemon that listens on {daemon.path} would put all back; "
            "stop it first: systemctl stop tula",
        )
    with errors():
        change = open_balancer(open_store(state_dir)).clear()
    _show(change, json, "nothing to remove")


def _plan_by(daemon: Client, file: Path | None, force: bool, json: bool) -> bool:
    """Has the daemon compare, which knows the backends' health; whether anything would change."""
    source = None
    if file is not None:
        document = read_document(file)
        warn(str(file), document)
        source = document.source.encode()
    with daemon_errors(lambda: str(file or "the document that runs")):
        outcome = daemon.plan(source, force)
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
            return str(daemon.get("/status")["daemon"]["document"]["path"])

    with daemon_errors(name):
        outcome = daemon.apply(source, force)
    if source is None and outcome["warnings"]:  # else they were told when the text was read
        told = name()
        for warning in outcome["warnings"]:
            print("warning: " + placed(warning).describe(told), file=sys.stderr)
    show_steps(outcome["changed"], outcome["steps"], json, "nothing changed")


def _show(change: Change, json: bool, nothing: str) -> None:
    from tula.engine.steps import describe_steps

    show_steps(bool(change), describe_steps(change), json, nothing)


def show_steps(changed: bool, steps: list[dict[str, Any]], as_json: bool, nothing: str) -> None:
    """What was or would be done, a line each, or ``nothing``."""
    if as_json:
        print_json({"changed": changed, "steps": steps})
    elif not changed:
        print(nothing)
    else:
        for step in steps:
            line = f"{_SIGNS[step['verb']]} {step['what']} {step['name']}"
            print(f"{line}  ({step['detail']})" if step["detail"] else line)
