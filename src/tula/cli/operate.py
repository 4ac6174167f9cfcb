"""``tula drain``, ``disable`` and ``weight``: overrides of the configuration, and their ends."""

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
    applied_config,
    duration,
    errors,
    fail,
    open_balancer,
    open_store,
    problems,
)
from tula.cli.daemon import daemon_errors, daemon_of, require_daemon
from tula.cli.status_text import connections as connections_left

Target = Annotated[
    str, typer.Argument(metavar="SERVICE/BACKEND", help="Names in the configuration.")
]

_POLL_INTERVAL = 1.0
"""Seconds between two requests for the state of a draining backend."""
_MAX_UNKNOWN = 10
"""After so many answers in a row without a number of connections, waiting for one is useless."""


def drain(
    target: Target,
    deadline: Annotated[
        str | None,
        typer.Option(
            "--deadline",
            metavar="TIME",
            help="Reset the connections that remain after, say, 10m or 1h30m.",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when no connections are left.")
    ] = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Stop sending new connections to a backend; existing ones continue."""
    seconds = None if deadline is None else duration(deadline, "--deadline")
    service, backend = names_of(target)
    if (wait or seconds is not None) and daemon_of(run_dir, state_dir) is None:
        option = "--deadline" if seconds is not None else "--wait"
        fail(
            FAILED,
            f"tula: {option} needs the daemon, which watches the drain, and none is running; "
            f"draining without {option} works",
        )
    _override("POST", "drain", target, {"deadline": seconds}, state_dir, run_dir)
    rest = (
        "existing ones continue" if deadline is None else f"those left after {deadline} are reset"
    )
    print(f"{target}: draining: no new connections, {rest}", flush=True)
    if wait:
        _wait(service, backend, run_dir)


def undrain(target: Target, state_dir: StateDir = STATE_DIR, run_dir: RunDir = RUN_DIR) -> None:
    """End a drain: the backend gets new connections again."""
    _override("POST", "undrain", target, None, state_dir, run_dir)
    print(f"{target}: no longer draining; gets new connections again if it is up")


def disable(target: Target, state_dir: StateDir = STATE_DIR, run_dir: RunDir = RUN_DIR) -> None:
    """Take a backend out of service at once: its connections are reset."""
    _override("POST", "disable", target, None, state_dir, run_dir)
    print(f"{target}: disabled; its connections are reset")


def enable(target: Target, state_dir: StateDir = STATE_DIR, run_dir: RunDir = RUN_DIR) -> None:
    """End a disable: the backend serves again if it is up."""
    _override("POST", "enable", target, None, state_dir, run_dir)
    print(f"{target}: enabled; serves again if it is up")


def weight(
    target: Target,
    value: Annotated[
        str,
        typer.Argument(
            metavar="N|configured", help="0 to 65535; or back to the configured weight."
        ),
    ],
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Override a backend's configured weight."""
    number = None
    if value not in ("configured", "document"):  # "document": until version 0.1
        number = int(value) if value.isascii() and value.isdecimal() and len(value) < 6 else -1
        if not 0 <= number <= 65535:
            fail(WRONG, f"tula: invalid weight {value!r}; give 0 to 65535, or configured")
    _override("PUT", "weight", target, {"weight": number}, state_dir, run_dir)
    print(f"{target}: weight {value if number is not None else 'as configured'}")


def names_of(target: str) -> tuple[str, str]:
    """The service and the backend of ``SERVICE/BACKEND``."""
    service, slash, backend = target.partition("/")
    if not (service and slash and backend) or "/" in backend:
        fail(WRONG, f"tula: {target!r}: give SERVICE/BACKEND, such as web/cache-1")
    return service, backend


def offline_override(state_dir: Path, name: tuple[str, str], verb: str, body: Any) -> None:
    """Without a daemon: record the override, and apply the last configuration with it."""
    from tula.config.load import describe
    from tula.engine.control import NoSuchBackendError, find_backend
    from tula.engine.overrides import override_change
    from tula.kernel.clock import boot_time

    store = open_store(state_dir)
    file, configuration = applied_config(store)
    try:
        find_backend(configuration.config, name)
    except NoSuchBackendError as error:
        fail(WRONG, f"tula: {error}")
    change = override_change(verb, boot_time(), **(body or {}))
    with errors(), problems(file, configuration):
        repair = open_balancer(store).override(configuration.config, name, change)
    for problem in repair.problems:
        print(f"warning: {describe(file, problem, configuration.positions)}", file=sys.stderr)
    if repair.unsaved:
        print(f"warning: not saved on disk: {repair.unsaved}", file=sys.stderr)


def _override(
    method: str, verb: str, target: str, body: Any, state_dir: Path, run_dir: Path
) -> None:
    name = names_of(target)
    daemon = daemon_of(run_dir, state_dir)
    if daemon is None:
        offline_override(state_dir, name, verb, body)
        return
    from tula.cli.client import backend_path

    with daemon_errors():
        daemon.send(method, backend_path(*name, verb), body)


def _wait(service: str, backend: str, run_dir: Path) -> None:
    """Wait until no connections are left or the drain is over."""
    unknown, shown = 0, ""
    try:
        while unknown < _MAX_UNKNOWN:
            line, ended = _left(_backend(service, backend, run_dir))
            if line and line != shown:
                print(f"{service}/{backend}: {line}", flush=True)
            if ended:
                return
            unknown = 0 if line else unknown + 1
            shown = line
            time.sleep(_POLL_INTERVAL)
    except KeyboardInterrupt:
        fail(INTERRUPTED, "tula: stopped waiting; the drain continues")
    fail(FAILED, "tula: the number of remaining connections is not known; the drain continues")


def _left(backend: dict[str, Any] | None) -> tuple[str, bool]:
    """What is left of a drain, empty if unknown; and whether the drain is over."""
    if backend is None:
        return "no longer in the configuration", True
    if backend["state"] != "draining":
        return f"{backend['state']}, no longer draining", True
    held = backend["connections"]
    if held is None:
        return "", False
    return f"{connections_left(held)} left", not held


def _backend(service: str, backend: str, run_dir: Path) -> dict[str, Any] | None:
    daemon = require_daemon(run_dir)
    with daemon_errors():
        status = daemon.get("/status")
    for one in status["services"]:
        for found in one["backends"]:
            if (one["name"], found["name"]) == (service, backend):
                return dict(found)
    return None
