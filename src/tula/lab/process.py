"""Programs that run inside a namespace and die with the lab."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

from tula.lab.guard import LabError, NamespaceId
from tula.lab.kept import record_process
from tula.lab.namespace import Namespace
from tula.lab.wait import wait_until

Completed = subprocess.CompletedProcess[str]
Process = subprocess.Popen[str]


class Spawner:
    """Starts programs for one lab, and ends them.

    ``PR_SET_PDEATHSIG`` fires when the *thread* that forked ends, so every long-lived program is
    forked by one thread that lives as long as the lab. The signal is set by setpriv(1) and not
    by a ``preexec_fn``: no Python runs between fork and exec.
    """

    def __init__(self, keep: Path | None = None) -> None:
        """With ``keep``, a named lab's directory, long-lived programs outlive this process."""
        self._keep = keep
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="lab-spawner")
        self._running: list[Process] = []

    def command(self, arguments: Sequence[str], keep: bool = False) -> list[str]:
        """The command line that dies with the thread that started it."""
        if keep:
            return list(arguments)
        setpriv = shutil.which("setpriv")
        if setpriv is None:
            raise LabError("the lab needs setpriv (package util-linux)")
        return [setpriv, "--pdeathsig", "KILL", "--", *arguments]

    def run(
        self,
        namespace: Namespace,
        arguments: Sequence[str],
        *,
        check: bool = True,
        input: str | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = 60.0,
    ) -> Completed:
        """Run a program in the namespace to its end; its output is captured as text."""
        with namespace.enter():
            process = subprocess.Popen(
                self.command(arguments),
                stdin=subprocess.DEVNULL if input is None else subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors="replace",
                env=dict(env) if env is not None else None,
            )
        with process:
            try:
                out, err = process.communicate(input, timeout=timeout)
            except BaseException as error:
                process.kill()
                if isinstance(error, subprocess.TimeoutExpired):
                    raise LabError(f"{_line(arguments)}: timed out after {timeout:g} s") from None
                raise
        if check and process.returncode != 0:
            detail = (err or out).strip() or "no output"
            raise LabError(f"{_line(arguments)}: exit status {process.returncode}: {detail}")
        return subprocess.CompletedProcess(list(arguments), process.returncode, out, err)

    def popen(
        self,
        namespace: Namespace,
        arguments: Sequence[str],
        *,
        stdout: int | None = subprocess.PIPE,
        stderr: int | None = subprocess.STDOUT,
        env: Mapping[str, str] | None = None,
    ) -> Process:
        """Start a program inside the namespace; the lab ends it, with its children."""

        def start() -> Process:
            with namespace.enter():
                process = subprocess.Popen(
                    self.command(arguments, keep=self._keep is not None),
                    stdin=subprocess.DEVNULL,
                    stdout=stdout,
                    stderr=stderr,
                    text=True,
                    env=dict(env) if env is not None else None,
                    start_new_session=True,
                )
            # In this thread Ctrl-C cannot come in between: every running program is known.
            self._running.append(process)
            if self._keep is not None:
                record_process(self._keep, process.pid)
            return process

        return self._thread.submit(start).result()

    def close(self) -> None:
        """End what still runs: SIGTERM, a second's grace, SIGKILL to its session."""
        self._thread.submit(lambda: None).result()  # after a start that Ctrl-C did not wait for
        running, self._running = self._running, []
        if self._keep is None:
            for process in running:
                if process.returncode is None:
                    process.terminate()
            for process in running:
                _end(process)
        self._thread.shutdown()  # only now: the end of the thread kills what it forked


def _end(process: Process) -> None:
    """Kill the session of a program told to stop, and reap it."""
    if process.returncode is None:
        with suppress(LabError):
            wait_until(lambda: _has_exited(process), 1.0)
        with suppress(ProcessLookupError):  # not reaped yet: the PID is still its own
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    for stream in (process.stdout, process.stderr):
        if stream is not None:
            stream.close()


def _has_exited(process: Process) -> bool:
    """Whether it is a zombie; leaves it one."""
    flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
    return os.waitid(os.P_PID, process.pid, flags) is not None


def processes_in(namespaces: Set[NamespaceId]) -> list[int]:
    """The processes in one of these network namespaces."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                status = (entry / "ns" / "net").stat()
            except OSError:
                continue  # ended meanwhile, or a kernel thread
            if (status.st_dev, status.st_ino) in namespaces:
                found.append(int(entry.name))
    return found


def _line(arguments: Sequence[str]) -> str:
    return " ".join(arguments)
