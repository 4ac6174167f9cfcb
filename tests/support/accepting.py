"""Takes configurations and overrides, is killed at random moments, and looks what is there then.

``python accepting.py STATE LIVES SEED CONFIGURATION…`` in a network namespace of its own: each life
is a process that does what the daemon does around a reconciler, on the real kernel, until it is
killed. Prints how many were killed while something was under way; ends with 1 at the first loss.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from tula.cli.common import kernel_adapters
from tula.config.load import parse_config
from tula.daemon.reconciler import Reconciler
from tula.engine.balancer import Balancer
from tula.engine.event_log import EventLog
from tula.engine.statistics import CycleOutcome
from tula.engine.steps import describe_steps
from tula.engine.store import Store
from tula.kernel.nftables import KernelNftables
from tula.lab.guard import require_private_namespace
from tula.model.health import BackendName, Override

LONGEST = 0.25
"""Seconds that a life lasts at most; what it does in them takes some tenths of that."""


@dataclass
class Known:
    """What must be there: accepted for certain, and what may have been accepted."""

    configurations: list[int] = field(default_factory=lambda: [0])
    overrides: list[dict[BackendName, Override]] = field(default_factory=lambda: [{}])


class Program:
    """The lives, and what is looked at between them."""

    def __init__(self, state: Path, seed: int, configurations: list[Path]) -> None:
        self.store = Store(state)
        self.sources = [path.read_bytes() for path in configurations]
        config = parse_config(self.sources[0]).config
        self.names = [(s.name, b.name) for s in config.services for b in s.backends]
        self.seed = seed
        self.chance = random.Random(seed)
        self.busy = self.there = 0

    def reconciler(self) -> tuple[Reconciler, Balancer]:
        balancer = Balancer(kernel_adapters(Path("/run/tula-absent")), self.store)
        made = Reconciler(balancer, self.store, EventLog())
        made.start()
        return made, balancer

    def live(self, number: int, tell: int) -> None:
        """A life: says what it begins and what it has accepted, one line each."""
        with self.store.owned():
            self.live_as_daemon(number, tell)

    def live_as_daemon(self, number: int, tell: int) -> None:
        chance = random.Random(self.seed * 1000 + number)
        reconciler, _ = self.reconciler()
        reconciler.cycle({}, compare=True)
        os.write(tell, b"started\n")
        while True:
            if chance.random() < 0.5:
                at = chance.randrange(len(self.sources))
                os.write(tell, f"configuration {at}\n".encode())
                reconciler.accept(parse_config(self.sources[at]), {})
            else:
                at = chance.randrange(len(self.names))
                kind = chance.choice(["drain", "disable", "weight", "none"])
                os.write(tell, f"override {at} {kind}\n".encode())
                reconciler.override(self.names[at], _override(kind))
                assert not reconciler.cycle({}, compare=False).error
            os.write(tell, b"accepted\n")

    def kill_one(self, number: int, known: Known) -> Known:
        """One life and its end."""
        hear, tell = os.pipe()
        pid = in_child(lambda: self.live(number, tell))
        os.close(tell)
        with os.fdopen(hear, "rb") as lines:
            lines.readline()
            time.sleep(self.chance.uniform(0, LONGEST))
            os.kill(pid, signal.SIGKILL)
            assert os.waitpid(pid, 0)[1] == signal.SIGKILL, "it ended by itself"
            said = lines.read().decode().splitlines()
        for line in said:
            if line == "accepted":
                known = Known(known.configurations[-1:], known.overrides[-1:])
                continue
            kind, at, *words = line.split()
            if kind == "configuration":
                known.configurations.append(int(at))
            else:
                before = known.overrides[-1]
                others = {n: o for n, o in before.items() if n != self.names[int(at)]}
                override = _override(words[0])
                now = {**others, self.names[int(at)]: override} if override else others
                known.overrides.append(now)
        self.busy += bool(said) and said[-1] != "accepted"
        return known

    def look(self, known: Known) -> Known:
        """What is there by the disk, and whether the kernel comes to just that."""
        with self.store.locked():  # an nft that is under way comes to its end
            configuration, overrides = self.store.configuration(), self.store.overrides()
        assert configuration in [self.sources[at] for at in known.configurations], known
        assert overrides in known.overrides, (overrides, known)
        status = os.waitpid(in_child(lambda: self.start_again(configuration)), 0)[1]
        assert status == 0, "see above"
        found = Known([self.sources.index(configuration)], [overrides])
        begun = len(known.configurations) + len(known.overrides) > 2
        self.there += begun and found == Known(known.configurations[-1:], known.overrides[-1:])
        return found

    def start_again(self, configuration: bytes) -> None:
        reconciler, balancer = self.reconciler()
        result = reconciler.cycle({}, compare=True)
        assert result.outcome is not CycleOutcome.FAILED, result
        assert reconciler.problems == ()
        before = KernelNftables().generation()
        change = balancer.plan(parse_config(configuration).config, configuration)
        assert not change, list(describe_steps(change))
        assert reconciler.cycle({}, compare=True).outcome is CycleOutcome.UNCHANGED
        assert KernelNftables().generation() == before


def _override(kind: str) -> Override:
    return {
        "drain": Override(drain=True),
        "disable": Override(disable=True),
        "weight": Override(weight=7),
        "none": Override(),
    }[kind]


def in_child(work: Callable[[], None]) -> int:
    """Its process; this one stays without threads and sockets, so that it can go on forking."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    return pid


def main(state: str, lives: str, seed: str, *configurations: str) -> None:
    """See above."""
    require_private_namespace()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    program = Program(Path(state), int(seed), [Path(path) for path in configurations])

    def first() -> None:
        program.reconciler()[0].accept(parse_config(program.sources[0]), {})

    assert os.waitpid(in_child(first), 0)[1] == 0
    known = Known()
    for number in range(int(lives)):
        known = program.look(program.kill_one(number, known))
    print(
        f"{lives} lives, {program.busy} ended in the middle of a change ({program.there} of these "
        "are there all the same); nothing accepted is lost"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
