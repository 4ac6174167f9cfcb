"""Backends die, drain and return, the daemon is killed: connections to the living notice nothing.

::

    client-1 (300 slow downloads, 30 UDP flows)      lb          backend-1 … 6
         │                                           │               │   (VIPs on lo)
    ═════╧═══════════════════════════════════════════╧═══════════════╧═════  lan

Backends 3 to 6 die (their server is killed, the VIP removed, the cable pulled), are disabled and
taken out of the configuration; all six are drained and reweighed. Half a minute and three times
``kill -9``; with TULA_SOAK=1 ten minutes and twenty (``make soak``).
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from support import churn_load
from support.churn_daemon import PORT, DaemonChurn
from support.queues import queue_drops
from tula.lab import Lab, Network, flat

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(1200)]

SOAK = bool(os.environ.get("TULA_SOAK"))
SECONDS, KILLS = (600.0, 20) if SOAK else (20.0, 3)
DOWNLOADS, FLOWS = 300, 30


@contextmanager
def loaded(network: Network) -> Iterator[list[str]]:
    """The load under way; what it noted is appended when the block is left."""
    program = [sys.executable, churn_load.__file__, "load", str(DOWNLOADS), str(FLOWS), str(PORT)]
    load = network.client.popen([*program, *network.vips], stdout=subprocess.PIPE)
    assert load.stdout is not None
    assert load.stdout.readline() == "ready\n"
    noted: list[str] = []
    yield noted
    load.send_signal(signal.SIGTERM)
    noted.append(load.communicate(timeout=60)[0])


class Judged:
    """What the load noted, by who was there when."""

    def __init__(self, churn: DaemonChurn, told: dict[str, Any]) -> None:
        self.lost: list[tuple[int, str, float]] = []
        """Datagrams to backends that lived."""
        self.moved: list[tuple[int, str, str, float]] = []
        """Flows that left a backend that lived."""
        self.late: list[tuple[int, str, float]] = []
        """Datagrams to backends that were out, by an answer or by the lack of one."""
        self.excused = 0
        by: dict[int, tuple[str, float]] = {}
        for flow, sent, name, _ in told["datagrams"]:
            before, since = by.get(flow, (name, sent))
            if not name:
                if before and churn.stayed(before, since, sent):
                    self.lost.append((flow, before, sent - churn.began))
                elif churn.failing(since, sent):
                    self.excused += 1
                else:
                    self.late.append((flow, before, sent - churn.began))
                continue
            if churn.gone(name, sent):
                self.late.append((flow, name, sent - churn.began))
            if name != before and churn.stayed(before, since, sent):
                self.moved.append((flow, before, name, sent - churn.began))
            by[flow] = (name, sent)
        self.broken = [
            each
            for each in told["breaks"]
            if (churn.stayed(*each[:3]) if each[0] else not churn.failing(*each[1:3]))
        ]


def test_the_living_lose_nothing(lab: Lab, tmp_path: Path) -> None:
    churn = DaemonChurn(flat(lab, backends=6), tmp_path)
    network, daemon = churn.network, churn.daemon
    with daemon:
        daemon.wait_for(**{f"backend_{n}": "up" for n in range(1, 7)})
        before = queue_drops()
        with loaded(network) as noted:
            start = time.monotonic()
            while (passed := time.monotonic() - start) < SECONDS:
                if passed > SECONDS * (churn.kills + 0.5) / KILLS:
                    churn.kill_and_restart()
                churn.step()
                time.sleep(0.3)
        dropped = queue_drops() - before
        wrong = churn.read_log()
    told = json.loads(noted[0])
    judged = Judged(churn, told)
    deaths = sum(a.why in ("server", "vip", "cable") for each in churn.away.values() for a in each)
    held = len(told["breaks"]) - len(judged.broken)
    summary = (
        f"{SECONDS:g} s, killed {churn.kills} times, {churn.done}, {deaths} deaths; "
        f"TCP: {told['open']} of {DOWNLOADS} downloads run, {told['whole']} of them since the "
        f"start, {held} broke with their backend, {len(judged.broken)} to living ones; "
        f"UDP: {len(told['datagrams'])} sent, {judged.excused} lost to those that were dying, "
        f"{len(judged.lost)} to living ones, {len(judged.moved)} flows left a living one, "
        f"{len(judged.late)} sent to those that were out; dropped by a busy machine: {dropped}; "
        f"said to be down and alive: {wrong}"
    )
    print(summary)
    assert not wrong, summary
    assert (judged.broken[:3], judged.moved[:3], judged.late[:3]) == ([], [], []), summary
    away = {name: churn.tell(name) for _, name, _ in judged.lost}
    assert len(judged.lost) <= dropped, (judged.lost[:5], away, summary)
    assert told["open"] == DOWNLOADS, summary
    assert told["whole"] > DOWNLOADS / 12, f"those of backends that stayed: {summary}"
    assert churn.kills >= KILLS, summary
    assert deaths, summary
