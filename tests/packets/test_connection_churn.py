"""Backends come, go, change weight, name and order: nobody else's flow notices.

::

    client-1 (300 slow downloads, 50 UDP flows)      lb          backend-1 … 6
         │                                           │               │   (VIPs on lo)
    ═════╧═══════════════════════════════════════════╧═══════════════╧═════  lan

Twenty seconds; with TULA_SOAK=1 five minutes (``make soak``).
"""

from __future__ import annotations

import json
import os
import random
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
from support.lab_configurations import backends_of
from support.queues import queue_drops
from support.serving import Serving
from tula.lab import Lab, Network, flat

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(600)]

DOWNLOADS, FLOWS, PORT = 300, 50, 8000
SECONDS = 300.0 if os.environ.get("TULA_SOAK") else 12.0
STAYING = ("backend-1", "backend-2")
"""Never removed; reweighed, renamed and reordered like the others."""
BY_COMMAND = 20
"""Every fifth apply is by the command, the others are in this process."""
SCHEDULERS = ("maglev", "maglev", "maglev", "rr", "wrr", "random", "source-hash")


class Churn:
    """Documents one after the other, and when each backend was away."""

    def __init__(self, serving: Serving) -> None:
        self.serving = serving
        self.away: dict[str, list[list[float]]] = {}
        """By backend: from the start of the apply that removed it to the end of that which
        brought it back; and between them the time since which it was surely gone."""
        self.applies: dict[str, int] = {}
        self._drawn = random.Random(3)
        everyone = backends_of(*serving.network.backends)
        self._present = {name: dict(keys) for name, keys in everyone.items()}
        self._absent: dict[str, dict[str, Any]] = {}

    def step(self) -> None:
        """One change and its apply."""
        drawn = self._drawn
        kinds = ["reweigh", "rename", "reorder", "scheduler", "remove", "remove", "add", "add"]
        kind = drawn.choice(kinds)
        moved = self._change(kind)
        names = list(self._present)
        if kind == "reorder":
            drawn.shuffle(names)
        prefix = f"{drawn.randrange(9)}-" if kind == "rename" else ""
        self.serving.web["backends"] = {prefix + name: self._present[name] for name in names}
        start = time.monotonic()
        self.serving.apply(by_command=sum(self.applies.values()) % BY_COMMAND == 0)
        end = time.monotonic()
        self.applies[kind] = self.applies.get(kind, 0) + 1
        if kind == "remove" and moved:
            self.away.setdefault(moved, []).append([start, end, float("inf"), float("inf")])
        if kind == "add" and moved:
            self.away[moved][-1][2:] = [start, end]

    def _change(self, kind: str) -> str:
        """The backend that goes or comes, if one does."""
        drawn = self._drawn
        leaving = [name for name in self._present if name not in STAYING]
        if kind == "remove" and leaving:
            name = drawn.choice(leaving)
            self._absent[name] = self._present.pop(name)
            self._someone_serves()
            return name
        if kind == "add" and self._absent:
            name = drawn.choice(list(self._absent))
            self._present[name] = self._absent.pop(name)
            return name
        if kind == "reweigh":
            for keys in self._present.values():
                keys["weight"] = drawn.choice([0, 1, 50, 100, 1000])
            self._someone_serves()
        if kind == "scheduler":
            self.serving.web["scheduler"] = drawn.choice(SCHEDULERS)
        return ""

    def _someone_serves(self) -> None:
        if not any(keys["weight"] for keys in self._present.values()):
            self._drawn.choice(list(self._present.values()))["weight"] = 100

    def stayed(self, name: str, start: float, end: float) -> bool:
        """Whether the backend was there all the time between."""
        return all(back < start or left > end for left, _, _, back in self.away.get(name, ()))

    def gone(self, name: str, at: float) -> bool:
        """Whether it was surely away then."""
        return any(left < at < back for _, left, back, _ in self.away.get(name, ()))

    def removing(self, start: float, end: float) -> bool:
        """Whether any backend left between."""
        everyone = [leave for each in self.away.values() for leave in each]
        return any(start <= gone and left <= end for left, gone, _, _ in everyone)


@pytest.fixture
def network(lab: Lab) -> Network:
    return flat(lab, backends=6)


@contextmanager
def loaded(network: Network) -> Iterator[list[str]]:
    """The load under way; what it noted is appended when the block is left."""
    program = [sys.executable, churn_load.__file__]
    for backend in network.backends:
        arguments = ["serve", backend.name, str(PORT), *network.vips]
        served = backend.popen([*program, *arguments], stdout=subprocess.PIPE)
        assert served.stdout is not None
        assert served.stdout.readline() == "ready\n"
    numbers = [str(DOWNLOADS), str(FLOWS), str(PORT)]
    load = network.client.popen([*program, "load", *numbers, *network.vips], stdout=subprocess.PIPE)
    assert load.stdout is not None
    assert load.stdout.readline() == "ready\n"
    noted: list[str] = []
    yield noted
    load.send_signal(signal.SIGTERM)
    noted.append(load.communicate(timeout=60)[0])


def test_backends_come_and_go_and_those_that_stay_lose_nothing(
    network: Network, tmp_path: Path
) -> None:
    serving = Serving(network, tmp_path / "tula.yaml", ports=[PORT])
    serving.web["backends"] = backends_of(*network.backends)
    serving.configuration["maglev"] = {"slots": 2039}  # what takes most of an apply's time
    serving.apply()
    churn = Churn(serving)
    dropped = queue_drops()
    with loaded(network) as noted:
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            churn.step()
    dropped = queue_drops() - dropped
    told = json.loads(noted[0])
    lost, moved, late, by = 0, 0, 0, {}
    wrong = []
    for flow, sent, name, _ in told["datagrams"]:
        lost += not name
        late += churn.gone(name, sent)
        before, since = by.get(flow, (name, sent))
        if name != before:
            moved += 1
            if churn.stayed(before, since, sent):
                wrong.append((flow, before, name, sent))
        by[flow] = (name, sent)
    broken = [
        each
        for each in told["breaks"]
        if (churn.stayed(*each[:3]) if each[0] else not churn.removing(*each[1:3]))
    ]
    held = len(told["breaks"]) - len(broken)
    summary = (
        f"{sum(churn.applies.values())} applies in {SECONDS:g} s ({churn.applies}); "
        f"TCP: {told['open']} of {DOWNLOADS} downloads run, {told['whole']} of them since the "
        f"start, {held} broke with their backend, {len(broken)} others; "
        f"UDP: {len(told['datagrams'])} sent, {lost} lost, {moved} times a flow moved, "
        f"{len(wrong)} from a backend that stayed; {late} went to a backend that was gone; "
        f"dropped by a busy machine: {dropped}"
    )
    print(summary)
    assert (wrong[:3], late, broken[:3]) == ([], 0, []), summary
    assert lost <= dropped, summary
    assert told["open"] == DOWNLOADS, summary
    assert told["whole"] > DOWNLOADS / 6, f"those of backends that stayed: {summary}"
    assert moved > 20, summary
    assert len(told["breaks"]) > 50, summary
