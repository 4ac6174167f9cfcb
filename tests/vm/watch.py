"""Watches a VM that runs: passes its words on, and sees to it that it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from vm.errors import VmError

_START = 180.0
"""Seconds until the VM's first word; it takes 10."""
_GRACE = 60.0
"""Seconds that the guest gets: after the limit, when it ends the command by itself; after its
result, to power off."""
_TAIL = 60
"""Lines of the console to show when something went wrong."""


class Watch:
    """The VM's process group, and the files it writes."""

    def __init__(self, vng: subprocess.Popen[bytes], shared: Path, console: Path) -> None:
        """Describe it; the process leads a session of its own."""
        self._vng = vng
        self._output = shared / "output"
        self._status = shared / "status"
        self._console = console

    def until_the_end(self, limit: float) -> int:
        """The guest's exit status; however this ends, the VM has ended."""
        try:
            with self._output.open("rb") as output:
                reason = self._follow(output, limit)
        finally:
            # The whole session: vng leaves qemu to itself when it is killed.
            with suppress(ProcessLookupError):
                os.killpg(self._vng.pid, signal.SIGKILL)
            self._vng.wait()
        status = self._result()
        if status is None:
            lines = self._console.read_text(errors="replace").splitlines()
            raise VmError("\n".join([f"{reason}; its console:", *lines[-_TAIL:]]))
        return status

    def _follow(self, output: BinaryIO, limit: float) -> str:
        """Pass on what comes until nothing more will; returns why."""
        began = time.monotonic()
        while True:
            ended = self._vng.poll() is not None or self._result() is not None
            while new := output.read(65536):
                sys.stdout.buffer.write(new)
                sys.stdout.buffer.flush()
            if ended:
                with suppress(subprocess.TimeoutExpired):
                    self._vng.wait(_GRACE)
                return "the VM ended without a result"
            passed = time.monotonic() - began
            if passed > _START and output.tell() == 0:
                return f"the VM said nothing in {_START:.0f} s"
            if passed > _START + limit + _GRACE:
                return f"the VM did not end itself after {limit:.0f} s"
            time.sleep(0.2)

    def _result(self) -> int | None:
        text = self._status.read_text() if self._status.exists() else ""
        return int(text) if text.endswith("\n") else None
