"""``tula standby`` and ``tula active``: hands the VIPs over, for maintenance."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tula.cli.audit import audited
from tula.cli.common import (
    FAILED,
    INTERRUPTED,
    RUN_DIR,
    STATE_DIR,
    RunDir,
    StateDir,
    applied_config,
    caller,
    errors,
    fail,
    open_balancer,
    open_store,
)
from tula.cli.daemon import daemon_errors, daemon_of

if TYPE_CHECKING:
    from tula.cli.client import Client

_LIMIT = 30.0
"""Seconds that a hand-over is waited for: VRRP's hold-down, and the slowest check's time."""
_POLL = 0.2

Answer = dict[str, Any]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Do not wait for the hand-over.")]


def standby(
    no_wait: NoWait = False, state_dir: StateDir = STATE_DIR, run_dir: RunDir = RUN_DIR
) -> None:
    """Hand the VIPs over to the other balancers, for maintenance; nothing is lost.

    It lasts over a restart, until tula active. If no other balancer lives, this one goes on.
    """
    daemon = daemon_of(run_dir, state_dir)
    if daemon is None:
        _stand_by_offline(True, state_dir, run_dir)
        return
    done = _send(daemon, "/standby")
    if done["role"] is None:
        print("stands by")
        _warn("this is no balancer of a configuration with high_availability: nobody takes over")
        return
    if not done["alive"]:
        _warn("no other balancer is heard: if none lives, this one keeps the VIPs")
    if not no_wait:
        _wait(daemon)


def active(state_dir: StateDir = STATE_DIR, run_dir: RunDir = RUN_DIR) -> None:
    """End tula standby. That alone moves no VIPs: the balancer that has them keeps them."""
    daemon = daemon_of(run_dir, state_dir)
    if daemon is None:
        _stand_by_offline(False, state_dir, run_dir)
        return
    done = _send(daemon, "/active")
    was = "no longer stands by" if done["changed"] else "did not stand by"
    now = "has the VIPs" if done["role"] == "active" else "takes them when another fails"
    print(f"{was}; {now}")


def _send(daemon: Client, path: str) -> Answer:
    with daemon_errors():
        return dict(daemon.send("POST", path))


def _wait(daemon: Client) -> None:
    """Until another balancer has the VIPs, or says why none does."""
    end = time.monotonic() + _LIMIT
    try:
        while True:
            with daemon_errors():
                answer = daemon.get("/status")
            if answer["role"] != "active":
                print("stands by: another balancer has the VIPs")
                return
            if time.monotonic() > end:
                break
            time.sleep(_POLL)
    except KeyboardInterrupt:
        fail(INTERRUPTED, "tula: stopped waiting; the hand-over continues")
    others = [_describe(peer) for peer in answer.get("peers") or ()]
    why = ", ".join(others) or "no other balancer is known: tula peer add"
    fail(FAILED, f"tula: this balancer still has the VIPs, since no other takes them: {why}")


def _describe(peer: Answer) -> str:
    if not peer["alive"]:
        return f"{peer['name']} is not heard"
    return f"{peer['name']} stands by, too" if peer["standby"] else f"{peer['name']} is alive"


def _stand_by_offline(on: bool, state_dir: Path, run_dir: Path) -> None:
    """Engines go on without a daemon, and obey."""
    store = open_store(state_dir)
    _, configuration = applied_config(store)
    balancer = open_balancer(store, run_dir)
    with (
        audited(state_dir, "standby" if on else "active") as entry,
        errors(),
        store.locked(),
    ):
        entry.wanted = balancer.served.set_standby(on, caller())
        statuses = balancer.left_statuses(configuration.config)
        found = balancer.inspect(configuration.config, statuses)
        failures = balancer.served.tell(found.plan)
    for line in failures:
        _warn(line)
    print("stands by" if on else "no longer stands by")


def _warn(line: str) -> None:
    import sys

    print(f"warning: {line}", file=sys.stderr)
