"""``tula plan``, ``apply``, ``reload`` and ``clear``: what changes the kernel."""

from __future__ import annotations

import re
import sys
from hashlib import sha256
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tula.cli.audit import audited, configuration_digest
from tula.cli.changes_text import Shows, show_changes
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
    Yes,
    caller,
    config_of,
    duration,
    errors,
    fail,
    kernel_adapters,
    open_balancer,
    open_store,
    print_json,
    problems,
    require_yes,
    warn,
)
from tula.cli.daemon import (
    daemon_errors,
    daemon_of,
    insist,
    placed,
    replaced_meanwhile,
    require_daemon,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from tula.cli.client import Client
    from tula.config.load import LoadedConfig
    from tula.engine.balancer import Balancer
    from tula.engine.change import Change, Outcome
    from tula.model.command import Command
    from tula.model.config import Config

_LONGEST = 86400
"""Seconds that a configuration may wait for its confirmation."""
ConfirmIn = Annotated[
    str | None,
    typer.Option(
        "--confirm",
        metavar="TIME",
        help="Go back by itself unless tula confirm comes in this time, such as 60s.",
    ),
]
Replaces = Annotated[
    str | None,
    typer.Option(
        "--replaces",
        metavar="DIGEST",
        help="Only if this configuration runs: configuration.digest of tula status --json.",
    ),
]
Verbose = Annotated[
    bool, typer.Option("-v", "--verbose", help="Also the kernel's maps and chains.")
]


def plan(
    file: MaybeFile = None,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit with 3 when apply would change something.")
    ] = False,
    verbose: Verbose = False,
    force: Force = False,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Show what apply would change; change nothing."""
    show = Shows(json, verbose)
    daemon = daemon_of(run_dir)
    if daemon is not None:
        changed = _plan_by(daemon, file, force, show)
        if changed and exit_code:
            raise typer.Exit(DIFFERENT)
        return
    store = open_store(state_dir)
    name, configuration = config_of(file, store)
    warn(name, configuration)
    with errors(), problems(name, configuration):
        change = open_balancer(store, run_dir).plan(
            configuration.config, configuration.source.encode(), force=force
        )
    warn(name, configuration, change.warnings)
    from tula.engine.offline import prepare_acceptance

    with errors():
        _, record = prepare_acceptance(store, configuration, "", "plan")
    _show(change, configuration.config, record.changes, show, "nothing to change")
    if change and exit_code:
        raise typer.Exit(DIFFERENT)


def apply(
    file: MaybeFile = None,
    confirm: ConfirmIn = None,
    replaces: Replaces = None,
    yes: Yes = False,
    verbose: Verbose = False,
    force: Force = False,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Accept a configuration, and bring the kernel to it in one atomic step.

    A daemon that runs does it, whatever the path of F; without F it takes its own file.
    """
    seconds = _confirm_in(confirm)
    if replaces is not None and not re.fullmatch("[0-9a-fA-F]{8,64}", replaces):
        fail(WRONG, f"tula: --replaces: {replaces!r} is no digest; give 8 of its digits or more")
    daemon = daemon_of(run_dir, state_dir)
    if daemon is not None:
        _apply_by(daemon, file, _Wish(force, yes, seconds, replaces), Shows(json, verbose))
        return
    if seconds is not None:
        fail(
            WRONG,
            "tula: --confirm needs the daemon, which goes back in time, and none is running; "
            "start it, or apply without --confirm",
        )
    from tula.engine.offline import prepare_acceptance

    store = open_store(state_dir)
    name, configuration = config_of(file, store)
    warn(name, configuration)
    if replaces is not None:
        from tula.engine.history import digest_of

        with errors():
            _require_expected(digest_of(store.configuration() or b""), replaces)
    with errors():
        losses, record = prepare_acceptance(store, configuration, caller(), "apply")
    if losses and not yes:
        require_yes(losses)
    balancer = open_balancer(store, run_dir)
    asked = {"digest": configuration_digest(configuration), "force": force}
    source = configuration.source.encode()
    with audited(state_dir, "apply", "", asked) as entry, errors(), problems(name, configuration):
        same = store.configuration() == source
        outcome = balancer.apply(configuration.config, source, force=force, record=record)
        entry.wanted = bool(outcome.change) or not same
    show = Shows(json, verbose)
    show_outcome(balancer, outcome, name, configuration, record.changes, show)


def show_outcome(
    balancer: Balancer,
    outcome: Outcome,
    name: str,
    configuration: LoadedConfig,
    changes: Sequence[str],
    show: Shows,
) -> None:
    """Ends an apply without a daemon: announces again, shows what was changed, and what is in the
    way."""
    warn(name, configuration, outcome.change.warnings)
    for warning in (*outcome.warnings, *balancer.announce_again()):
        print(f"warning: {warning}; run tula apply again", file=sys.stderr)
    if outcome.unsaved:
        print(f"warning: not remembered on disk: {outcome.unsaved}", file=sys.stderr)
    _show(outcome.change, configuration.config, changes, show, "nothing changed")


def reload(
    confirm: ConfirmIn = None,
    yes: Yes = False,
    verbose: Verbose = False,
    force: Force = False,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Have the daemon accept what its file holds now; if refused, the old one goes on."""
    wish = _Wish(force, yes, _confirm_in(confirm))
    _apply_by(require_daemon(run_dir), None, wish, Shows(json, verbose))


def _confirm_in(text: str | None) -> float | None:
    if text is None:
        return None
    seconds = duration(text, "--confirm")
    if not 1 <= seconds <= _LONGEST:
        fail(WRONG, f"tula: --confirm: {text} is not between 1s and 24h")
    return seconds


def clear(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print commands that do it without tula.")
    ] = False,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Remove from the kernel everything that tula made, and nothing else."""
    if dry_run:
        from tula.engine.removal import removal_commands

        with errors():
            commands = removal_commands(kernel_adapters(run_dir), open_store(state_dir))
        show_commands(commands, as_json=json)
        return
    daemon = daemon_of(run_dir, state_dir)
    if daemon is not None:
        fail(
            FAILED,
            f"tula: the daemon that listens on {daemon.way.name} would restore it all; "
            "stop it first: systemctl stop tula",
        )
    with audited(state_dir, "clear") as entry, errors():
        change = open_balancer(open_store(state_dir), run_dir).clear()
        entry.wanted = bool(change)
    from tula.engine.steps import describe_steps

    show_changes(
        *(bool(change), (), describe_steps(change), Shows(json, verbose=True)),
        "nothing to remove",
    )


def show_commands(commands: Sequence[Command], as_json: bool) -> None:
    """For a shell, one a line."""
    if as_json:
        print_json({"commands": [str(each) for each in commands]})
        return
    for each in commands:
        print(each)
    if not commands:
        print("# Nothing to remove.")


def _read(file: Path) -> bytes:
    """The file's content for the daemon, which parses it and names its problems."""
    from tula.config.errors import BrokenError
    from tula.config.parts import read_text

    try:
        return read_text(file)
    except BrokenError as error:
        fail(WRONG, f"{file}: {error.message}")


def _plan_by(daemon: Client, file: Path | None, force: bool, show: Shows) -> bool:
    """Has the daemon compare, which knows the backends' health; whether anything would change."""
    source = None if file is None else _read(file)

    def name() -> str:
        return str(file) if file is not None else _file_of(daemon)

    with daemon_errors(name):
        outcome = daemon.plan(source, force)
    _warn(outcome, name)
    show_changes(
        *(outcome["changed"], outcome.get("summary"), outcome["steps"], show),
        "nothing to change",
    )
    return bool(outcome["changed"])


class _Wish(NamedTuple):
    """The options of apply and reload; ``confirm`` in seconds."""

    force: bool
    yes: bool
    confirm: float | None
    replaces: str | None = None


def _apply_by(daemon: Client, file: Path | None, wish: _Wish, show: Shows) -> None:
    """Has the daemon accept a file's configuration, by default its own, and shows what it did."""
    source = None if file is None else _read(file)

    def name() -> str:
        return str(file) if file is not None else _file_of(daemon)

    def send(yes: bool, instead: str | None) -> dict[str, Any]:
        answer = daemon.apply(source, instead, force=wish.force, yes=yes, confirm=wish.confirm)
        return dict(answer)

    def ask(yes: bool) -> dict[str, Any]:
        from tula.cli.client import DaemonError

        # Whatever the daemon's own file holds is meant, unless a question about it was answered.
        bound = source is not None or wish.replaces is not None or yes is not wish.yes
        try:
            return send(yes, before if bound else None)
        except DaemonError as error:
            if not error.outdated:
                raise
        runs = daemon.digest()
        if source is None or sha256(source).hexdigest() != runs:
            replaced_meanwhile(daemon, runs)
        # Somebody had the very same accepted, such as tula run --watch.
        return send(yes, runs)

    with daemon_errors(name):
        before = _expected(daemon, wish.replaces)
        outcome = insist(ask, wish.yes)
    _warn(outcome, name)
    show_changes(
        *(outcome["changed"], outcome.get("summary"), outcome["steps"], show),
        "nothing changed",
    )
    if wish.confirm is not None:
        print(f"goes back in {wish.confirm:g}s unless you run tula confirm", file=sys.stderr)


def _expected(daemon: Client, replaces: str | None) -> str | None:
    """The digest of the configuration that is to be replaced: of what runs now, if the user names
    no other by its digest or the beginning of that."""
    runs = daemon.digest()
    if replaces is None:
        return runs
    if runs is None:
        fail(FAILED, "tula: --replaces: this daemon is too old to compare; restart it")
    _require_expected(runs, replaces)
    return runs


def _require_expected(runs: str, replaces: str) -> None:
    if not runs.startswith(replaces.lower()):
        fail(
            FAILED,
            f"tula: --replaces: another configuration runs, {runs[:12]}; tula history tells who "
            "had it accepted, tula diff what it changed",
        )


def _file_of(daemon: Client) -> str:
    """The name of the daemon's file."""
    with daemon_errors():
        return str(daemon.get("/status")["daemon"]["configuration"]["path"])


def _warn(outcome: dict[str, Any], name: Callable[[], str]) -> None:
    """Prints the warnings; ``name`` tells what the configuration's file is called."""
    if outcome["warnings"]:
        told = name()
        for warning in outcome["warnings"]:
            print("warning: " + placed(warning).describe(told), file=sys.stderr)


def _show(change: Change, after: Config, changes: Sequence[str], show: Shows, nothing: str) -> None:
    """``changes`` are those of the configuration, which became ``after``."""
    from tula.engine.plan_text import describe_plan
    from tula.engine.steps import describe_steps

    summary = describe_plan(changes, after, change.steps())
    show_changes(bool(change), summary, describe_steps(change), show, nothing)
