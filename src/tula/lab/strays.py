"""Programs that outlive those who started them: engines that ``tula run`` starts in sessions of
their own.

The kernel's way to have a child die with its parent does not reach them, and one that lives on
keeps its namespace. The lab ends them when it ends; where it is killed, a shell does that waits
for the end of a pipe which only the lab holds open.
"""

from __future__ import annotations

import os
import signal
import subprocess
from contextlib import suppress
from pathlib import Path

from tula.lab.guard import NamespaceId
from tula.lab.process import processes_in

_WAIT = r"""
read -r _ || :
while read -r wanted; do
    for entry in /proc/[0-9]*; do
        [ "$(readlink "$entry/ns/net" 2>/dev/null)" = "$wanted" ] && kill -9 "${entry#/proc/}"
    done
done <"$1"
"""


class Strays:
    """Ends what still runs in a lab's namespaces when the lab ends, however that happens."""

    def __init__(self, directory: Path) -> None:
        """Keeps a list of the namespaces in this directory."""
        self._list = directory / "inodes"
        self._ids: set[NamespaceId] = set()
        self._watch: subprocess.Popen[bytes] | None = None

    def add(self, namespace: NamespaceId) -> None:
        """A namespace of the lab's own."""
        self._ids.add(namespace)
        with self._list.open("a") as file:
            file.write(f"net:[{namespace[1]}]\n")

    def watch(self) -> None:
        """From now on even if this process is killed."""
        if self._watch is None:
            self._watch = subprocess.Popen(
                ["/bin/sh", "-c", _WAIT, "sh", str(self._list)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )

    def close(self) -> None:
        """End them now."""
        while found := [pid for pid in processes_in(self._ids) if pid != os.getpid()]:
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self._ids.clear()
        if self._watch is not None:
            self._list.write_text("")
            self._watch.communicate()
            self._watch = None
