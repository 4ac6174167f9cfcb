"""``tula drain`` and its like: what the operator says of a backend, beside the document."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from tula.cli.common import (
    FAILED,
    INTERRUPTED,
    RUN_DIR,
    STATE_DIR,
    WRONG,
    RunDir,
    StateDir,
    applied_document,
    duration,
    errors,
    fail,
    open_balancer,
    open_store,
    problems,
)
from tula.cli.daemon import daemon_errors, daemon_of, require_daemon

Target = Annotated[
    str, typer.Argument(metavar="SERVICE/BACKEND", help="The names in the document.")
]

_LOOK = 1.0
"""Seconds between two looks at a backend that drains."""
_UNKNOWN = 10
"""So many looks in a row without a number of connections, and nobody will ever know it."""


def drain(
    target: Target,
    deadline: Annotated[
        str | None,
        typer.Option("--deadline", metavar="TIME", help="Give up what is left after 10m, 1h30m."),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when no connection is left.")
    ] = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Give a backend no new connections; those that it has go on."""
    seconds = None if deadline is None else duration(deadline, "--deadline")
    service, backend = names_of(target)
    if (wait or seconds is not None) and daemon_of(run_dir, state_dir) is None:
        option = "--deadline" if seconds is not None else "--wait"
        fail(
            FAILED,
            f"tula: {option} needs the daemon, which watches the drain, and none runs here; "
            f"without {option} it is drained all the same",
        )
    _say("POST", "drain", target, {"deadline": seconds}, state_dir, run_dir)
    until = "" if deadline is None else f"; what is left in {deadline} is given up"
    print(f"{target}: drained: no new connections{until}", flush=True)
    if wait:
        _wait(service, backend, run_dir)


def undrain(target: Target, state_dir: StateDir = STATE_DIR, run_dir: RunDir = RUN_DIR) -> None:
    """Take a drain back: the backend gets new connections again."""
    _say("POST", "undrain", target, None, state_dir, run_dir)
    print(f"{target}: not drained")


def disable(target: Target, state_dir: StateDir = STATE_DIR, run_dir: RunDir = RUN_DIR) -> None:
    """Take a backend out at once: the connections that it has are given up."""
    _say("POST", "disable", target, None, state_dir, run_dir)
    print(f"{target}: disabled")


def enable(target: Target, state_dir: StateDir = STATE_DIR, run_dir: RunDir = RUN_DIR) -> None:
    """Take a disable back: the backend serves again, if it is up."""
    _say("POST", "enable", target, None, state_dir, run_dir)
    print(f"{target}: enabled")


def weight(
    target: Target,
    value: Annotated[
        str, typer.Argument(metavar="N|document", help="0 to 65535, or the document's again.")
    ],
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Give a backend another weight than the document's."""
    number = None
    if value != "document":
        number = int(value) if value.isascii() and value.isdecimal() and len(value) < 6 else -1
        if not 0 <= number <= 65535:
            fail(WRONG, f"tula: {value!r} is no weight; give 0 to 65535, or document")
    _say("PUT", "weight", target, {"weight": number}, state_dir, run_dir)
    print(f"{target}: weight {value if number is not None else 'of the document'}")


def names_of(target: str) -> tuple[str, str]:
    """The service and the backend of ``SERVICE/BACKEND``."""
    service, slash, backend = target.partition("/")
    if not (service and slash and backend) or "/" in backend:
        fail(WRONG, f"tula: {target!r}: give SERVICE/BACKEND, such as web/cache-1")
    return service, backend


def offline_override(state_dir: Path, name: tuple[str, str], verb: str, body: Any) -> None:
    """What the operator says while no daemon runs: it is kept, and the kernel brought to it."""
    from tula.config.load import describe
    from tula.engine.control import NoSuchBackendError, find_backend
    from tula.engine.overrides import override_change

    store = open_store(state_dir)
    file, document = applied_document(store)
    try:
        find_backend(document.config, name)
    except NoSuchBackendError as error:
        fail(WRONG, f"tula: {error}")
    change = override_change(verb, time.time(), **(body or {}))
    with errors(), problems(file, document):
        repair = open_balancer(store).override(document.config, name, change)
    for problem in repair.problems:
        print(f"warning: {describe(file, problem, document.positions)}", file=sys.stderr)
    if repair.unsaved:
        print(f"warning: not remembered on disk: {repair.unsaved}", file=sys.stderr)


def _say(method: str, verb: str, target: str, body: Any, state_dir: Path, run_dir: Path) -> None:
    name = names_of(target)
    daemon = daemon_of(run_dir, state_dir)
    if daemon is None:
        offline_override(state_dir, name, verb, body)
        return
    from tula.cli.client import backend_path

    with daemon_errors():
        daemon.send(method, backend_path(*name, verb), body)


def _wait(service: str, backend: str, run_dir: Path) -> None:
    """Until no connection is left, or the drain has ended in another way."""
    unknown, shown = 0, ""
    try:
        while unknown < _UNKNOWN:
            line, ended = _left(_backend(service, backend, run_dir))
            if line and line != shown:
                print(f"{service}/{backend}: {line}", flush=True)
            if ended:
                return
            unknown = 0 if line else unknown + 1
            shown = line
            time.sleep(_LOOK)
    except KeyboardInterrupt:
        fail(INTERRUPTED, "tula: not waiting any more; the drain goes on")
    fail(FAILED, "tula: how many connections are left is not known here; the drain goes on")


def _left(backend: dict[str, Any] | None) -> tuple[str, bool]:
    """What is left of a drain, empty when not known, and whether it has ended."""
    if backend is None:
        return "no longer in the document", True
    if backend["state"] != "draining":
        return f"{backend['state']}, no longer draining", True
    held = backend["connections"]
    if held is None:
        return "", False
    return f"{held or 'no'} connections left", not held


def _backend(service: str, backend: str, run_dir: Path) -> dict[str, Any] | None:
    daemon = require_daemon(run_dir)
    with daemon_errors():
        status = daemon.get("/status")
    for one in status["services"]:
        for found in one["backends"]:
            if (one["name"], found["name"]) == (service, backend):
                return dict(found)
    return None
