"""``tula drain``, ``disable`` and ``weight``: overrides of the configuration, and their ends."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli.audit import audited
from tula.cli.common import (
    FAILED,
    INTERRUPTED,
    RUN_DIR,
    STATE_DIR,
    WRONG,
    RunDir,
    StateDir,
    Yes,
    applied_config,
    duration,
    errors,
    fail,
    open_balancer,
    open_store,
    problems,
    require_yes,
)
from tula.cli.completion import complete_backends
from tula.cli.daemon import daemon_errors, daemon_of, insist, require_daemon
from tula.cli.everywhere import (
    Everywhere,
    JsonToo,
    Reachable,
    change_everywhere,
    only_everywhere,
    override_line,
)
from tula.cli.override_text import Over, View, describe_override, drain_progress
from tula.model.wording import describe_duration

if TYPE_CHECKING:
    from tula.cli.client import Client

Target = Annotated[
    str,
    typer.Argument(
        metavar="SERVICE/BACKEND",
        help="Names in the configuration.",
        autocompletion=complete_backends,
    ),
]

_POLL_INTERVAL = 1.0
"""Seconds between two requests for the state of a draining backend."""
_NOT_FOUND = 404
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
    release: Annotated[
        bool,
        typer.Option("--release", help="Send new connections of its persistent clients elsewhere."),
    ] = False,
    yes: Yes = False,
    everywhere: Everywhere = False,
    reachable: Reachable = False,
    json: JsonToo = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Stop sending new connections to a backend; existing ones continue."""
    seconds = None if deadline is None else duration(deadline, "--deadline")
    service, backend = names_of(target)
    if wait and everywhere:
        fail(WRONG, "tula: --wait waits for one balancer's connections; leave out --everywhere")
    if (wait or seconds is not None) and daemon_of(run_dir, state_dir) is None:
        option = "--deadline" if seconds is not None else "--wait"
        fail(
            FAILED,
            f"tula: {option} needs the daemon, which watches the drain, and none is running; "
            f"draining without {option} works",
        )
    way = _Way(state_dir, run_dir, everywhere, reachable, json)
    body = {"deadline": seconds} | ({"release": True} if release else {})
    _override("POST", "drain", target, body, way, yes)
    if wait:
        _wait(service, backend, run_dir)


def undrain(
    target: Target,
    everywhere: Everywhere = False,
    reachable: Reachable = False,
    json: JsonToo = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """End a drain: the backend gets new connections again."""
    _override(
        "POST", "undrain", target, None, _Way(state_dir, run_dir, everywhere, reachable, json)
    )


def disable(
    target: Target,
    yes: Yes = False,
    everywhere: Everywhere = False,
    reachable: Reachable = False,
    json: JsonToo = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Take a backend out of service at once: its connections are reset."""
    way = _Way(state_dir, run_dir, everywhere, reachable, json)
    _override("POST", "disable", target, None, way, yes)


def enable(
    target: Target,
    everywhere: Everywhere = False,
    reachable: Reachable = False,
    json: JsonToo = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """End a disable: the backend serves again if it is up."""
    way = _Way(state_dir, run_dir, everywhere, reachable, json)
    _override("POST", "enable", target, None, way)


def weight(
    target: Target,
    value: Annotated[
        str,
        typer.Argument(
            metavar="N|configured", help="0 to 65535; or back to the configured weight."
        ),
    ],
    yes: Yes = False,
    everywhere: Everywhere = False,
    reachable: Reachable = False,
    json: JsonToo = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Override a backend's configured weight."""
    number = None
    if value not in ("configured", "document"):  # "document": until version 0.1
        number = int(value) if value.isascii() and value.isdecimal() and len(value) < 6 else -1
        if not 0 <= number <= 65535:
            fail(WRONG, f"tula: invalid weight {value!r}; give 0 to 65535, or configured")
    way = _Way(state_dir, run_dir, everywhere, reachable, json)
    _override("PUT", "weight", target, {"weight": number}, way, yes)


def names_of(target: str) -> tuple[str, str]:
    """The service and the backend of ``SERVICE/BACKEND``."""
    service, slash, backend = target.partition("/")
    if not (service and slash and backend) or "/" in backend:
        fail(WRONG, f"tula: {target!r}: give SERVICE/BACKEND, such as web/cache-1")
    return service, backend


def offline_override(
    state_dir: Path, run_dir: Path, name: tuple[str, str], verb: str, body: Any, yes: bool = True
) -> tuple[View, View]:
    """Without a daemon: record the override, and apply the last configuration with it.

    Returns the backend before and after.
    """
    from tula.config.load import describe
    from tula.engine.backend_view import describe_backend, view_backend
    from tula.engine.control import NoSuchBackendError, find_backend
    from tula.engine.offline import override_losses
    from tula.engine.overrides import override_change
    from tula.kernel.clock import boot_time
    from tula.model.health import Override

    store = open_store(state_dir)
    file, configuration = applied_config(store)
    balancer = open_balancer(store, run_dir)
    try:
        backend = find_backend(configuration.config, name)
    except NoSuchBackendError as error:
        fail(WRONG, f"tula: {error}")

    def view() -> View:
        with errors():
            override = store.overrides().get(name, Override())
            status = balancer.without_monitors(configuration.config)[name]
        return describe_backend(view_backend(name, backend, status, override, boot_time()))

    before = view()
    change = override_change(verb, boot_time(), **(body or {}))
    if not yes:
        with errors():
            losses = override_losses(store, configuration.config, name, change)
        if losses:
            require_yes(losses)
    with audited(state_dir, verb, "/".join(name), body), errors(), problems(file, configuration):
        repair = balancer.override(configuration.config, name, change)
    for problem in repair.problems:
        print(f"warning: {describe(file, problem, configuration.positions)}", file=sys.stderr)
    if repair.unsaved:
        print(f"warning: not saved on disk: {repair.unsaved}", file=sys.stderr)
    return before, view()


@dataclass(frozen=True, slots=True)
class _Way:
    """Where a command is carried out."""

    state_dir: Path
    run_dir: Path
    everywhere: bool
    reachable: bool
    json: bool


def _override_everywhere(
    method: str, verb: str, target: str, body: Any, way: _Way, yes: bool
) -> None:
    from tula.cli.client import backend_path

    daemon, path = require_daemon(way.run_dir), backend_path(*names_of(target), verb)
    given = body or {}
    deadline = given.get("deadline")
    shown = None if deadline is None else describe_duration(deadline)

    def ask(sure: bool) -> dict[str, Any]:
        force = sure and verb in ("drain", "disable", "weight")
        query = {"force": force, "reachable": way.reachable}
        return dict(daemon.everywhere(method, path, body, query=query))

    change_everywhere(
        ask,
        yes,
        as_json=way.json,
        line=override_line(verb, target, shown, given.get("weight")),
        repair="when all answer, give the same command again",
    )


def _override(
    method: str,
    verb: str,
    target: str,
    body: Any,
    way: _Way,
    yes: bool = True,
) -> None:
    """Changes an override, and says what has come of it."""
    name = names_of(target)
    only_everywhere(way.everywhere, reachable=way.reachable, json=way.json)
    if way.everywhere:
        _override_everywhere(method, verb, target, body, way, yes)
        return
    daemon = daemon_of(way.run_dir, way.state_dir)
    before: View | None
    after: View | None
    if daemon is None:
        before, after = offline_override(way.state_dir, way.run_dir, name, verb, body, yes)
    else:
        from tula.cli.client import backend_path

        before = _view(daemon, name)
        path = backend_path(*name, verb)

        def ask(sure: bool) -> Any:
            return daemon.send(method, f"{path}?force=true" if sure else path, body)

        with daemon_errors():
            insist(ask, yes)
        after = _view(daemon, name)
    given = body or {}
    deadline, number = given.get("deadline"), given.get("weight")
    shown = None if deadline is None else describe_duration(deadline)
    text = describe_override(verb, before, after, deadline=shown, weight=number)
    print(f"{target}: {text}", flush=True)


def _view(daemon: Client, name: tuple[str, str]) -> View | None:
    """The backend, for what is said of it; whatever is wrong is told by the command itself."""
    from tula.cli.client import DaemonError, NoDaemonError, backend_path

    try:
        return dict(daemon.get(backend_path(*name)))
    except (DaemonError, NoDaemonError):
        return None


def _wait(service: str, backend: str, run_dir: Path) -> None:
    """Wait until no connections are left or the drain is over."""
    unknown, shown = 0, ""
    try:
        while unknown < _MAX_UNKNOWN:
            line, over = drain_progress(_backend(service, backend, run_dir))
            if over is Over.ENDED:
                fail(FAILED, f"tula: {service}/{backend}: {line}")
            if line and line != shown:
                print(f"{service}/{backend}: {line}", flush=True)
            if over is Over.DONE:
                return
            unknown = 0 if line else unknown + 1
            shown = line
            time.sleep(_POLL_INTERVAL)
    except KeyboardInterrupt:
        fail(INTERRUPTED, "tula: stopped waiting; the drain continues")
    fail(FAILED, "tula: the number of remaining connections is not known; the drain continues")


def _backend(service: str, backend: str, run_dir: Path) -> View | None:
    from tula.cli.client import DaemonError, backend_path

    daemon = require_daemon(run_dir)
    with daemon_errors():
        try:
            return dict(daemon.get(backend_path(service, backend)))
        except DaemonError as error:
            if error.status == _NOT_FOUND:
                return None
            raise
