"""``tula audit``: who changed what; and its entries of what commands change without a daemon."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli.common import (
    FAILED,
    STATE_DIR,
    WRONG,
    Ended,
    Json,
    StateDir,
    caller,
    errors,
    fail,
    print_json,
)
from tula.cli.daemon import daemon_errors
from tula.cli.remote import chosen_server

if TYPE_CHECKING:
    from tula.config.load import LoadedConfig

_MOST = 100_000
_MOST_AFAR = 1000
"""As ``tula.api.routes.audit`` has it."""


def audit(
    number: Annotated[
        int, typer.Option("-n", "--limit", min=1, max=_MOST, help="How many of the latest changes.")
    ] = 100,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
) -> None:
    """Show who changed what, when, from where, and what came of it."""
    server = chosen_server()
    if server is None:
        from tula.engine.audit import describe_entry, read_audit

        with errors():
            found = [describe_entry(entry) for entry in read_audit(state_dir, number)]
    else:
        from tula.cli.client import Client

        if number > _MOST_AFAR:
            fail(WRONG, f"tula: -n: {_MOST_AFAR:,} at most from another machine")
        with daemon_errors():
            found = Client(server).get("/audit", limit=number)["entries"]
    if json:
        print_json({"entries": found})
        return
    if not found:
        print("no change is in the audit log here")
    from tula.cli.terminal import screen_of

    screen = screen_of()
    colours = {"refused": "yellow", "failed": "red", "begun": "yellow"}
    for entry in found:
        for line in screen.wrap(_line(entry), indent=4):
            print(screen.paint(line, colours.get(entry["result"], "")))


def _line(entry: dict[str, Any]) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry["time"]))
    details = " ".join(f"{name}={_short(name, v)}" for name, v in entry["details"].items())
    asked = " ".join(filter(None, [entry["action"], entry["subject"], details]))
    source = "" if entry["from"] == "local" else f" from {entry['from']}"
    why = f": {entry['why']}" if entry["why"] else ""
    return f"{when}  {entry['who']}{source}  {asked}  {entry['result']}{why}"


def _short(name: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)[:12] if name == "digest" else str(value)


@dataclass(slots=True)
class Audited:
    """What a command changes; ``wanted``: whether there was anything to change."""

    wanted: bool = True


@contextmanager
def audited(
    state_dir: Path, action: str, subject: str = "", details: Mapping[str, Any] | None = None
) -> Iterator[Audited]:
    """Enters in the audit log what the command does inside, and how that failed.

    Wrong input changes nothing, and leaves no trace in a state directory that may not be there.
    """
    from tula.engine.audit import AuditFile, Result, new_entry
    from tula.engine.callers import Caller, Scope
    from tula.model.errors import StateError

    given = {name: value for name, value in (details or {}).items() if value not in (None, False)}
    entry = new_entry(Caller(caller(), Scope.LOCAL), action, subject, given)
    wanted = Audited()
    try:
        yield wanted
    except Ended as error:
        if error.exit_code == FAILED and state_dir.is_dir():
            try:
                why = "; ".join(line.removeprefix("tula: ") for line in error.lines)
                AuditFile(state_dir).write([entry.ended(Result.FAILED, why)])
            except StateError:
                pass  # it has failed for the same reason
        raise
    if wanted.wanted:
        try:
            AuditFile(state_dir).write([entry.ended(Result.DONE)])
        except StateError as error:
            print(f"warning: not in the audit log: {error}", file=sys.stderr)


def configuration_digest(configuration: LoadedConfig) -> str:
    """What the audit log calls a configuration."""
    from tula.engine.history import digest_of

    return digest_of(configuration.source.encode())
