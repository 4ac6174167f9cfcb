"""``tula plan``, ``apply``, ``reload`` and ``clear``: what changes the kernel."""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from tula.cli.accepting import Wish, apply_by, apply_everywhere, plan_by, require_expected
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
    daemon_of,
    require_daemon,
)
from tula.cli.everywhere import Everywhere, Reachable, only_everywhere

if TYPE_CHECKING:
    from collections.abc import Sequence

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
        changed = plan_by(daemon, file, force, show)
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
    everywhere: Everywhere = False,
    reachable: Reachable = False,
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
    only_everywhere(everywhere, reachable=reachable)
    daemon = require_daemon(run_dir) if everywhere else daemon_of(run_dir, state_dir)
    if daemon is not None:
        wish = Wish(force, yes, seconds, replaces)
        if everywhere:
            apply_everywhere(daemon, file, wish, reachable, json)
        else:
            apply_by(daemon, file, wish, Shows(json, verbose))
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
            require_expected(digest_of(store.configuration() or b""), replaces)
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
    wish = Wish(force, yes, _confirm_in(confirm))
    apply_by(require_daemon(run_dir), None, wish, Shows(json, verbose))


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


def _show(change: Change, after: Config, changes: Sequence[str], show: Shows, nothing: str) -> None:
    """``changes`` are those of the configuration, which became ``after``."""
    from tula.engine.plan_text import describe_plan
    from tula.engine.steps import describe_steps

    summary = describe_plan(changes, after, change.steps())
    show_changes(bool(change), summary, describe_steps(change), show, nothing)
