"""A day of an operator, under load: nobody's request is lost by what he does, or has done to him.

::

    client-1 (20 connections that ask ten times a second,       lb          backend-1 … 3
         │    20 new ones a second, 20 UDP flows)               │               │   (VIPs on lo)
    ═════╧══════════════════════════════════════════════════════╧═══════════════╧═════  lan

With TULA_SOAK=1 all of it (``make soak``); with TULA_DAY_SOURCE another version's ``src``, whose
costs are printed and not judged. The clock of the daemon alone is set, by a file that its Python
reads, since no namespace has a CLOCK_REALTIME of its own; in the VM the machine's is. networkd is
Debian's where it starts; its reload, and firewalld's, are imitated by what they do to the kernel.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from support.day_costs import NEW, OPEN, UDP, losses, table
from support.operators_day import Day, environment
from support.queues import queue_drops
from tula.lab import Lab, flat

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(900)]

LONG = bool(os.environ.get("TULA_SOAK"))
AFTER_ROLL = "ruleset flushed after the roll"
"""Connections that began while a backend was drained are where the hash no longer sends them."""
GAPS = ("ruleset flushed", "table deleted", "interface down", AFTER_ROLL)
"""Nothing is forwarded for a moment, and nobody repeats a datagram."""


def test_an_operators_day(lab: Lab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    day = Day(flat(lab, clients=1), tmp_path, long=LONG)
    dropped = queue_drops()
    with day.running():
        if LONG:
            day.during("nothing", day.nothing)
            day.during("bad edits, each reloaded", day.bad_edits)
            day.during("half-written file", day.half_a_file)
        day.during("half-written file, reloaded", day.half_a_file_is_reloaded)
        day.during("ruleset flushed", day.flush)
        if LONG:
            day.during("table deleted", day.delete_table)
            day.during("VIPs deleted", day.delete_vips)
            day.during("interface down", day.link_down_and_up)
        day.during("daemon killed", day.kill)
        if LONG:
            day.during("daemon restarted", day.restart)
            day.during("disk full", day.fill_disk)
        day.during("clock set", day.set_clock)
        day.during("backends rolled", day.roll_backends)
        if LONG:
            day.during(AFTER_ROLL, day.flush)
        day.during("backend-2 disabled", day.disable, exempt="backend-2")
        day.during("firewalld reloaded", day.reload_firewalld)
        day.during("networkd reloaded", day.reload_networkd)
        if LONG:
            day.during("networkd started", day.start_networkd)
    dropped = queue_drops() - dropped
    print(table(day.costs))
    print(losses(day.costs))
    if "TULA_DAY_SOURCE" in os.environ:
        return
    for cost in day.costs:
        assert cost.of(OPEN), cost.name
        assert cost.name == AFTER_ROLL or not cost.lost(OPEN), losses(day.costs)
        # What is under way to a disabled backend is its own too, and nobody knows yet whose.
        assert cost.exempt or not cost.lost(NEW), losses(day.costs)
        assert cost.name in GAPS or len(cost.lost(UDP)) <= dropped, losses(day.costs)
