"""Has the daemon plan and accept configurations: this balancer's alone, or on all of them."""

from __future__ import annotations

import sys
from hashlib import sha256
from typing import TYPE_CHECKING, Any, NamedTuple

from tula.cli.changes_text import Shows, show_changes
from tula.cli.common import FAILED, WRONG, fail
from tula.cli.daemon import daemon_errors, insist, placed, replaced_meanwhile
from tula.cli.everywhere import change_everywhere, configuration_line, tell_waiting

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tula.cli.client import Client


def read_file(file: Path) -> bytes:
    """The file's content for the daemon, which parses it and names its problems."""
    from tula.config.errors import BrokenError
    from tula.config.parts import read_text

    try:
        return read_text(file)
    except BrokenError as error:
        fail(WRONG, f"{file}: {error.message}")


def plan_by(daemon: Client, file: Path | None, force: bool, show: Shows) -> bool:
    """Has the daemon compare, which knows the backends' health; whether anything would change."""
    source = None if file is None else read_file(file)

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


class Wish(NamedTuple):
    """The options of apply and reload; ``confirm`` in seconds."""

    force: bool
    yes: bool
    confirm: float | None
    replaces: str | None = None


def apply_by(daemon: Client, file: Path | None, wish: Wish, show: Shows) -> None:
    """Has the daemon accept a file's configuration, by default its own, and shows what it did."""
    source = None if file is None else read_file(file)

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


def apply_everywhere(
    daemon: Client, file: Path | None, wish: Wish, reachable: bool, as_json: bool
) -> None:
    """Has all balancers accept a file's configuration, by default the daemon's own, or none."""
    source = None if file is None else read_file(file)
    with daemon_errors():
        before = _expected(daemon, wish.replaces)
    given = {"force": wish.force, "confirm": wish.confirm, "reachable": reachable}

    def ask(yes: bool) -> dict[str, Any]:
        from tula.cli.client import DaemonError

        sure = "true" if yes else "false"
        try:
            answer: dict[str, Any] = daemon.everywhere(
                "POST", "/apply", source=source, instead=before, query={"yes": sure, **given}
            )
        except DaemonError as error:
            if not error.outdated:
                raise
            replaced_meanwhile(daemon, daemon.digest())
        return answer

    change_everywhere(
        ask,
        wish.yes,
        as_json=as_json,
        line=configuration_line,
        repair="tula status tells what is left; it is driven on by itself",
        name=lambda: str(file) if file is not None else _file_of(daemon),
    )
    if wish.confirm is not None:
        tell_waiting(wish.confirm)


def _expected(daemon: Client, replaces: str | None) -> str | None:
    """The digest of the configuration that is to be replaced: of what runs now, if the user names
    no other by its digest or the beginning of that."""
    runs = daemon.digest()
    if replaces is None:
        return runs
    if runs is None:
        fail(FAILED, "tula: --replaces: this daemon is too old to compare; restart it")
    require_expected(runs, replaces)
    return runs


def require_expected(runs: str, replaces: str) -> None:
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
