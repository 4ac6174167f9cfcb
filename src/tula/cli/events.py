"""``tula events``: what happened, and what is happening."""

from __future__ import annotations

import json as jsonlib
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli.common import (
    INTERRUPTED,
    RUN_DIR,
    STATE_DIR,
    Json,
    RunDir,
    StateDir,
    errors,
    print_json,
)
from tula.cli.daemon import daemon_errors, daemon_of, no_daemon

if TYPE_CHECKING:
    from tula.cli.terminal import Screen

_BAD = frozenset(
    {
        *("backend-down", "cycle-failed", "configuration-refused", "kernel-repaired"),
        *("panic-started", "task-failed", "engine-warning", "peer-lost", "configurations-differ"),
        *("overrides-differ", "clocks-differ", "roles-wrong"),
        *("backups-started", "minimum-missed"),
    }
)
_GOOD = frozenset(
    {
        *("backend-up", "cycle-recovered", "panic-ended", "peer-back", "configurations-equal"),
        *("overrides-equal", "clocks-equal", "roles-right"),
        *("backups-ended", "minimum-reached"),
    }
)

_POLL_INTERVAL = 1.0
"""Seconds between two requests for new events."""
_LIMIT = 1000
"""The most events in one answer of the API."""


def events(
    follow: Annotated[
        bool, typer.Option("-f", "--follow", help="Keep printing events as they happen.")
    ] = False,
    number: Annotated[
        int,
        typer.Option("-n", "--number", min=1, max=_LIMIT, help="How many of the latest events."),
    ] = 100,
    json: Json = False,
    state_dir: StateDir = STATE_DIR,
    run_dir: RunDir = RUN_DIR,
) -> None:
    """Show what happened: state changes, configurations, overrides, repairs.

    Without a daemon, those that the last one stored.
    """
    daemon = daemon_of(run_dir)
    if daemon is not None:
        with daemon_errors():
            page = daemon.get("/events", limit=number)
    else:
        page = _stored(state_dir, run_dir, number)
    found = page["events"]
    if json and not follow:
        print_json({"epoch": page["epoch"], "events": found})
        return
    _print(found, json)
    if follow:
        try:
            _follow(page["epoch"], found[-1]["number"] if found else 0, json, run_dir)
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


def _stored(state_dir: Path, run_dir: Path, number: int) -> dict[str, Any]:
    """What the API would answer, from the disk."""
    from tula.engine.event_file import read_events
    from tula.model.severity import describe_event

    with errors():
        stored = read_events(state_dir)
    if not stored.events:
        no_daemon(run_dir)
    return {"epoch": stored.epoch, "events": [describe_event(e) for e in stored.events[-number:]]}


def _follow(epoch: str, last: int, json: bool, run_dir: RunDir) -> None:
    """Follow, also across restarts of the daemon, which goes on with epoch and numbers.

    With another epoch, of a daemon that found no events on disk, its first event is the next.
    """
    from tula.cli.client import DaemonError, NoDaemonError

    gone = False
    while True:
        try:
            daemon = daemon_of(run_dir)
            if daemon is None:
                raise NoDaemonError
            page = daemon.get("/events", after=last, epoch=epoch, limit=_LIMIT)
        except (NoDaemonError, DaemonError) as error:
            if isinstance(error, DaemonError) and error.denied:
                with daemon_errors():
                    raise
            if not gone:
                why = str(error) if isinstance(error, DaemonError) else "no daemon is running"
                print(f"tula: {why}; waiting for it", file=sys.stderr, flush=True)
            gone = True
        else:
            gone = False
            found = page["events"]
            _print(found, json)
            if page["epoch"] != epoch:
                epoch, last = page["epoch"], 0
            last = found[-1]["number"] if found else last
        time.sleep(_POLL_INTERVAL)


def _print(found: list[dict[str, Any]], json: bool) -> None:
    from tula.cli.terminal import screen_of

    screen = screen_of()
    for event in found:
        for line in [jsonlib.dumps(event)] if json else event_lines(event, screen):
            print(line)
    sys.stdout.flush()


def event_lines(event: dict[str, Any], screen: Screen) -> list[str]:
    """An event as a line; where that is longer than the screen is wide, as several."""
    line = _line(event)
    first, *rest = screen.wrap(line, indent=4)
    bad = event["kind"] in _BAD
    about = " ".join(filter(None, [event["kind"], event["subject"]]))
    colour = "red" if bad else "green" if event["kind"] in _GOOD else ""
    return [first.replace(about, screen.paint(about, colour), 1), *rest]


def _line(event: dict[str, Any]) -> str:
    # In UTC, for comparison with the events of other machines.
    when = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(event["time"]))
    about = " ".join(filter(None, [event["kind"], event["subject"]]))
    by = f"by {event['by']}" if event.get("by") else ""
    text = "; ".join(filter(None, [event["message"], event["evidence"], by]))
    return f"{when}  {about}" + (f": {text}" if text else "")
