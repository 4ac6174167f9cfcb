"""``tula backend join`` that is killed before the command of a given number, for its tests.

Run as a program: ``python killed_join.py NUMBER STATE_DIRECTORY CONFIGURATION FILE``, the last
for networkd. Before command 0
only the record is on the disk; a number behind the last command kills before the last record.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from tula.agent.agent import Agent
from tula.agent.identity import find_role
from tula.agent.record import Record, RecordFile, Source
from tula.config.load import load_config
from tula.kernel.backend_host import KernelBackendHost
from tula.kernel.network import KernelNetwork
from tula.model.backend_setup import BackendFacts
from tula.model.command import Command


class Killed(KernelBackendHost):
    """A machine on which this process does not live long."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self._left = left
        self._ran = False

    def run(self, commands: Sequence[Command]) -> None:
        for command in commands:
            self._ran = True
            if not self._left:
                os.kill(os.getpid(), signal.SIGKILL)
            self._left -= 1
            super().run([command])

    def observe(self, settings: Iterable[str], files: Iterable[str] = ()) -> BackendFacts:
        if self._ran:  # the last look, when all commands are done
            print("all commands were run", flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        return super().observe(settings, files)


def main() -> None:
    number, state, path = int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3])
    unmanaged = sys.argv[4]
    configuration = load_config(path)
    here = {held.address.ip for held in KernelNetwork().view(()).addresses}
    role = find_role(str(path), configuration.config, here)
    record = Record((Source(str(path), configuration.source),))
    Agent(Killed(number), RecordFile(state), unmanaged=unmanaged).join([role], record)


if __name__ == "__main__":
    main()
