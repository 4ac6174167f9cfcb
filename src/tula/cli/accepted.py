"""``tula configuration``, ``confirm``, ``history``, ``diff`` and ``rollback``: configurations that
were accepted."""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli.audit import audited, configuration_digest
from tula.cli.change import show_outcome
from tula.cli.changes_text import Shows
from tula.cli.common import (
    FAILED,
    RUN_DIR,
    STATE_DIR,
    WRONG,
    Json,
    RunDir,
    StateDir,
    applied_config,
    caller,
    errors,
    fail,
    open_balancer,
    open_store,
    print_json,
    problems,
)
from tula.cli.daemon import daemon_errors, daemon_of, require_daemon
from tula.cli.everywhere import (
    Everywhere,
    JsonToo,
    Reachable,
    change_everywhere,
    configuration_line,
    only_everywhere,
)
from tula.cli.remote import chosen_server

if TYPE_CHECKING:
    from pathlib import Path

    from tula.cli.client import Client
    from tula.engine.history import Entry
    from tula.engine.store import Store

Number = Annotated[
    int | None,
    typer.Argument(metavar="[N]", min=1, help="As tula history numbers it. [default: the last]"),
]


What = Annotated[
    str | None,
    typer.Argument(
        metavar="[N|DIGEST]",
        help="As tula history numbers it, or its digest or the beginning of it. "
        "[default: the last]",
        show_default=False,
    ),
]


def confirm(
    everywhere: Everywhere = False,
    json: JsonToo = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Keep the configuration that tula apply --confirm has put in force."""
    only_everywhere(everywhere, json=json)
    daemon = require_daemon(run_dir)
    if everywhere:
        change_everywhere(
            lambda _: dict(daemon.everywhere("POST", "/confirm")),
            True,
            as_json=json,
            line=configuration_line,
            repair="tula status tells what is left; it is driven on by itself",
        )
        return
    with daemon_errors():
        daemon.send("POST", "/confirm")
    print("confirmed")


def configuration(
    json: Json = False, state_dir: StateDir = STATE_DIR, run_dir: RunDir = RUN_DIR
) -> None:
    """Print the configuration that runs, as it was written. By a token of less than configure,
    secrets are hidden."""
    daemon = daemon_of(run_dir)
    if daemon is not None:
        with daemon_errors():
            text, digest = daemon.configuration()
    else:
        from tula.engine.history import digest_of

        _, applied = applied_config(open_store(state_dir))
        text, digest = applied.source, digest_of(applied.source.encode())
    if json:
        print_json({"digest": digest, "configuration": text})
        return
    sys.stdout.write(text)


def history(json: Json = False, state_dir: StateDir = STATE_DIR, run_dir: RunDir = RUN_DIR) -> None:
    """Show the configurations that were accepted: when, by whom, and what changed."""
    daemon = daemon_of(run_dir)
    if daemon is not None:
        with daemon_errors():
            found = daemon.get("/history")["entries"]
    else:
        from dataclasses import asdict

        with errors():
            found = [asdict(entry) for entry in open_store(state_dir).history()]
    if json:
        print_json({"entries": found})
        return
    if not found:
        print("no configuration has been accepted here")
    for entry in found:
        print(_line(entry, in_force=entry is found[-1]))
        for change in entry["changes"]:
            print(f"       {change}")


def diff(number: Number = None, state_dir: StateDir = STATE_DIR, run_dir: RunDir = RUN_DIR) -> None:
    """Show how an accepted configuration differs from the one that runs; secrets are hidden."""
    daemon = daemon_of(run_dir)
    if daemon is not None:
        with daemon_errors():
            text = daemon.text("/diff", number=number)
    else:
        from tula.config.redact import redacted_diff

        store = open_store(state_dir)
        _, running = applied_config(store)
        entry, found = _past(store, number, running.source.encode())
        text = redacted_diff(
            found.decode(), running.source, f"configuration {entry.number}", "running"
        )
    sys.stdout.write(text)


def rollback(
    number: What = None,
    write: Annotated[
        bool, typer.Option("--write", help="Also write it to the daemon's file.")
    ] = False,
    everywhere: Everywhere = False,
    reachable: Reachable = False,
    json: JsonToo = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Go back to an accepted configuration; drains and weights stay as they are."""
    what = _what(number)
    only_everywhere(everywhere, reachable=reachable, json=json)
    if everywhere:
        if write:
            fail(WRONG, "tula: --write is for this machine's file; leave it out, or --everywhere")
        _rollback_everywhere(require_daemon(run_dir), what, reachable, json)
        return
    if write and (server := chosen_server()) is not None:
        fail(WRONG, f"tula: --write is for the machine that has the file; run it on {server.host}")
    daemon = daemon_of(run_dir, state_dir)
    if daemon is None:
        if write:
            fail(WRONG, "tula: --write needs the daemon, whose file it is, and none is running")
        _rollback_offline(open_store(state_dir), run_dir, what)
        return
    store = open_store(state_dir)
    if write:
        _require_writable(daemon, store)
    with daemon_errors():
        key = "number" if isinstance(what, int) else "digest"
        path = "/rollback" if what is None else f"/rollback?{key}={what}"
        done = daemon.send("POST", path)
    print(f"configuration {done['number']} runs" + ("" if done["changed"] else ", as it did"))
    if write and done["file_differs"]:
        _write(daemon, store, done["file"])
    elif done["file_differs"]:
        print(
            f"{done['file']} now differs from what runs; tula rollback {done['number']} --write "
            "writes it",
            file=sys.stderr,
        )


def _what(given: str | None) -> int | str | None:
    """A number of the history, or a digest or the beginning of one."""
    if given is None:
        return None
    found: int | str = given
    if re.fullmatch("[1-9][0-9]{0,6}", given):
        found = int(given)
    elif not re.fullmatch("[0-9a-fA-F]{8,64}", given):
        fail(
            WRONG,
            f"tula: {given!r} is neither a number of tula history nor a digest of 8 digits or more",
        )
    return found


def _rollback_everywhere(
    daemon: Client, what: int | str | None, reachable: bool, as_json: bool
) -> None:
    key = "number" if isinstance(what, int) else "digest"

    change_everywhere(
        lambda _: dict(
            daemon.everywhere("POST", "/rollback", query={"reachable": reachable, key: what})
        ),
        True,
        as_json=as_json,
        line=configuration_line,
        repair="tula status tells what is left; it is driven on by itself",
    )


def _require_writable(daemon: Client, store: Store) -> None:
    """Ends the command before anything has changed, where it is plain that nothing could be
    written: the file is a directory, or this user may not read the accepted configuration."""
    from pathlib import Path

    with daemon_errors():
        file = Path(daemon.get("/status")["configuration"]["file"])
    if file.is_dir():
        fail(
            WRONG,
            f"tula: --write: {file} is a directory, which is not written; roll back without it",
        )
    with errors():
        store.configuration()


def _write(daemon: Client, store: Store, file: str) -> None:
    """Writes what runs now to the daemon's file, as the user who asks for it."""
    from pathlib import Path

    from tula.engine.history import digest_of

    with errors():
        text = store.configuration() or b""
    with daemon_errors():
        running = daemon.get("/status")["configuration"]["digest"]
    if digest_of(text) != running:
        fail(FAILED, f"tula: {file} was not written: another configuration runs by now")
    try:
        _replace(Path(file).resolve(), text)
    except OSError as error:
        fail(FAILED, f"tula: {file} was not written: {error.strerror or error}")
    print(f"{file} holds it now")


def _replace(path: Path, text: bytes) -> None:
    """Replaces a file by another with its owner and mode: a crash leaves the old or the new."""
    import os
    import shutil
    import tempfile
    from pathlib import Path

    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as new:
        try:
            new.write(text)
            new.flush()
            found = path.stat()
            os.fchown(new.fileno(), found.st_uid, found.st_gid)
            shutil.copymode(path, new.name)
            os.fsync(new.fileno())
            Path(new.name).replace(path)
        except OSError:
            Path(new.name).unlink()
            raise


def _rollback_offline(store: Store, run_dir: Path, number: int | str | None) -> None:
    from tula.config.load import ConfigError, describe, parse_config
    from tula.engine.offline import prepare_acceptance

    with errors():
        running = store.configuration() or b""
    entry, text = _past(store, number, running)
    name = f"configuration {entry.number}"
    try:
        loaded = parse_config(text)
    except ConfigError as error:
        fail(WRONG, *(describe(name, problem, error.positions) for problem in error.problems))
    asked = {"number": entry.number, "digest": configuration_digest(loaded)}
    with (
        audited(store.directory, "rollback", "", asked),
        errors(),
        problems(name, loaded),
    ):
        _, record = prepare_acceptance(store, loaded, caller(), f"rollback to {entry.number}")
        # What was accepted once, SSH port and all, may come back without a question.
        balancer = open_balancer(store, run_dir)
        outcome = balancer.apply(loaded.config, text, force=True, record=record)
    show = Shows(json=False, verbose=False)
    show_outcome(balancer, outcome, name, loaded, record.changes, show)
    print(f"{name} runs; the file that it was applied from may differ", file=sys.stderr)


def _past(store: Store, number: int | str | None, running: bytes) -> tuple[Entry, bytes]:
    """An entry of the history and its text; exit status 2 if there is none."""
    from tula.engine.history import digest_of, find_entry

    with errors():
        try:
            entry = find_entry(store.history(), number, digest_of(running))
        except LookupError as error:
            fail(WRONG, f"tula: {error.args[0]}")
        return entry, store.past_configuration(entry.number)


def _line(entry: dict[str, Any], in_force: bool) -> str:
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(entry["time"]))
    by = f" by {entry['by']}" if entry["by"] else ""
    how = f"  {entry['how']}{by}" if entry["how"] or by else ""
    return f"{entry['number']:>5}  {when}{how}" + ("  (in force)" if in_force else "")
