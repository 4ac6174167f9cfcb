"""Engines beside Tula that announce VIPs (keepalived, BIRD): their files and their processes.

An engine runs by a generated file in a directory of its own below the run directory, and never
depends on Tula once it runs. Two ways to run it: by systemd, whose ``.path`` unit starts the
engine's service when the file comes; then Tula only writes the file, and signals the process that
the engine's pid file names. Or, without systemd, as a session of its own that outlives whoever
started it, and is found again by the pid file.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tula.kernel.directory import Directory
from tula.kernel.engine_log import bound_log, open_log
from tula.kernel.engine_process import environment, find_engine, program_path
from tula.kernel.failures import Failures, fallible
from tula.kernel.systemd import own_service, systemd_runs
from tula.model.errors import KernelError

_RUN_DIR = Path("/run/tula")
"""Where the path units look for files."""
_UNITS = Path("/etc/systemd/system")
_CHECK_LIMIT = 20.0
_STOP_LIMIT = 5.0
_START_LIMIT = 5.0
_REST_LIMIT = 3.0
_POLL = 0.02
_MODE = 0o640


@dataclass(frozen=True, slots=True)
class Program:
    """How an engine is called. In ``check`` and ``run``, ``{file}``, ``{pid}`` and ``{directory}``
    stand for paths; ``unit`` is the name of its systemd units, without a suffix."""

    name: str
    package: str
    file: str
    check: tuple[str, ...]
    run: tuple[str, ...]
    unit: str

    @property
    def pid_file(self) -> str:
        """Its name in the engine's directory."""
        return f"{self.name}.pid"


KEEPALIVED = Program(
    name="keepalived",
    package="keepalived",
    file="keepalived.conf",
    check=("keepalived", "--config-test", "--use-file", "{file}"),
    run=(
        *("keepalived", "--dont-fork", "--log-console", "--no-syslog", "--vrrp"),
        *("--use-file", "{file}", "--pid", "{pid}", "--vrrp_pid", "{directory}/vrrp.pid"),
    ),
    unit="tula-keepalived",
)
BIRD = Program(
    name="bird",
    package="bird2",
    file="bird.conf",
    check=("bird", "-p", "-c", "{file}"),
    run=("bird", "-f", "-c", "{file}", "-P", "{pid}", "-s", "{directory}/bird.ctl"),
    unit="tula-bird",
)


class Engine(Protocol):
    """One engine of one machine. Methods raise KernelError; none waits for the network."""

    @property
    def program(self) -> Program:
        """Which."""

    @property
    def place(self) -> Path:
        """Where its file is."""

    @property
    def kept(self) -> bool:
        """Whether systemd starts it, now and whenever it dies."""

    def missing(self) -> str:
        """How to get the program where it is not installed; empty where it is."""

    def read(self, name: str = "") -> str | None:
        """A file of its directory, by default its configuration; None if there is none."""

    def write(self, name: str, text: str) -> None:
        """Replaces another file of its directory as a whole."""

    def check(self, text: str) -> str:
        """What the engine's own checker says against a configuration; empty for nothing."""

    def put(self, text: str) -> None:
        """Puts a configuration in place. Does not tell the engine."""

    def runs(self) -> bool:
        """Whether it runs, by that configuration file."""

    def pid(self) -> int | None:
        """Its process, while it runs."""

    def start(self) -> None:
        """Starts it where systemd does not."""

    def reload(self) -> None:
        """Has it read its configuration again."""

    def stop(self) -> None:
        """Removes its configuration and ends it; waits until it has ended."""


class KernelEngine:
    """An engine in the network namespace that the calling thread is in."""

    def __init__(self, program: Program, run_dir: Path) -> None:
        self._program = program
        self._files = Directory(run_dir.absolute() / program.name)
        self._run_dir = run_dir.absolute()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def program(self) -> Program:
        return self._program

    @property
    def place(self) -> Path:
        return self._files.path / self._program.file

    @property
    def _log(self) -> Path:
        return self._files.path / f"{self._program.name}.log"

    @property
    def kept(self) -> bool:
        wants = _UNITS.glob(f"*.wants/{self._program.unit}.path")
        return self._run_dir == _RUN_DIR and systemd_runs() and any(wants)

    def missing(self) -> str:
        if shutil.which(self._program.run[0], path=program_path()) is not None:
            return ""
        return (
            f"{self._program.name} is not installed here; install it: "
            f"apt install {self._program.package}"
        )

    def read(self, name: str = "") -> str | None:
        try:
            return self._files.read(name or self._program.file).decode(errors="replace")
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise self._error("read", error) from error

    def write(self, name: str, text: str) -> None:
        try:
            self._make_directory()
            self._files.write(name, text.encode(), _MODE)
        except OSError as error:
            raise self._error("write", error) from error

    def check(self, text: str) -> str:
        aside = f"check.{secrets.token_hex(8)}"
        self.write(aside, text)
        try:
            done = subprocess.run(
                self._command(self._program.check, aside),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=_CHECK_LIMIT,
                env=environment(),
                cwd="/",
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise KernelError(f"{self._program.name} cannot check its file: {error}") from error
        finally:
            with suppress(OSError):
                self._files.remove(aside)
        if done.returncode == 0:
            return ""
        lines = done.stdout.decode(errors="replace").replace(aside, self._program.file)
        told = [line.strip() for line in lines.splitlines() if line.strip()]
        return "; ".join(told[-3:]) or f"exit status {done.returncode}"

    def put(self, text: str) -> None:
        self.write(self._program.file, text)

    def runs(self) -> bool:
        bound_log(self._log)
        return self.pid() is not None

    def pid(self) -> int | None:
        self._reap()
        return self._pid()

    def start(self) -> None:
        if self.kept or self.runs():
            return
        if self._run_dir == _RUN_DIR and (service := own_service()):
            raise KernelError(
                f"{self._program.name} is not started, for it would end with {service}: let "
                f"systemd do it: systemctl enable --now {self._program.unit}.path"
            )
        try:
            if os.geteuid() != self._files.path.stat().st_uid:
                # As root it would obey a file that another user may write.
                raise KernelError(
                    f"{self._program.name} must run as the owner of {self._files.path}: it is "
                    "started by that user's tula run"
                )
            self._end_rest()
            if self._adopt():
                return
            log = open_log(self._log)
            try:
                self._child = subprocess.Popen(
                    self._command(self._program.run, self._program.file),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment(),
                    cwd="/",
                    start_new_session=True,
                )
            finally:
                os.close(log)
        except OSError as error:
            raise self._error("start", error) from error
        end = time.monotonic() + _START_LIMIT
        while self._pid() is None and time.monotonic() < end:
            if self._child.poll() is not None:
                told = (self.read(self._log.name) or "").strip().splitlines()[-2:]
                raise KernelError(f"{self._program.name} ended at once: {'; '.join(told)}")
            time.sleep(_POLL)

    def reload(self) -> None:
        self._signal(signal.SIGHUP)

    def stop(self) -> None:
        try:
            self._files.remove(self._program.file)
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            raise self._error("stop", error) from error
        pid = self._pid()
        self._signal(signal.SIGTERM)
        end = time.monotonic() + _STOP_LIMIT
        while pid is not None and self._pid() == pid:
            self._reap()
            if time.monotonic() > end:
                self._signal(signal.SIGKILL)
                break
            time.sleep(_POLL)
        self._reap()

    def _make_directory(self) -> None:
        """The directory belongs to the owner of the run directory, whoever makes it."""
        path = self._files.path
        if path.is_dir():
            return
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        path.mkdir(mode=0o755, exist_ok=True)
        owner = path.parent.stat()
        if os.geteuid() == 0 and owner.st_uid != 0:
            os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)

    def _pid(self, name: str = "") -> int | None:
        """The engine's process, or that of another pid file of its.

        A pid file may be of an earlier boot, or by somebody who wants another process to get the
        signal: the process must run by our file, as the file's owner.
        """
        try:
            pid = int(self._files.read(name or self._program.pid_file))
            process = Path("/proc", str(pid))
            words = process.joinpath("cmdline").read_bytes().split(b"\0")
            same_user = process.stat().st_uid == self._files.path.stat().st_uid
        except (OSError, ValueError):
            return None
        return pid if pid > 1 and same_user and os.fsencode(self.place) in words else None

    def _signal(self, number: signal.Signals, name: str = "") -> None:
        pid = self._pid(name)
        if pid is not None:
            try:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            except OSError as error:
                raise self._error("signal", error) from error

    def _end_rest(self) -> None:
        """What is left of one that was killed: a process of its own ends by itself, later, and
        until then the engine would say that it runs already."""
        end = time.monotonic() + _REST_LIMIT
        for name in self._files.names():
            if name.endswith(".pid"):
                while self._pid(name) is not None and time.monotonic() < end:
                    time.sleep(_POLL)
                self._signal(signal.SIGKILL, name)
                self._files.remove(name)

    def _adopt(self) -> bool:
        """One that runs without its pid file would run beside the new one, and never be ended."""
        pid = find_engine(self._program.name, self.place, self._files.path.stat().st_uid)
        if pid is not None:
            self.write(self._program.pid_file, f"{pid}\n")
            self.reload()
        return pid is not None

    def _reap(self) -> None:
        if self._child is not None and self._child.poll() is not None:
            self._child = None

    def _command(self, words: tuple[str, ...], file: str) -> list[str]:
        paths = {
            "file": str(self._files.path / file),
            "pid": str(self._files.path / self._program.pid_file),
            "directory": str(self._files.path),
        }
        return [word.format(**paths) for word in words]

    def _error(self, verb: str, error: OSError) -> KernelError:
        reason = error.strerror or str(error)
        return KernelError(f"cannot {verb} {self._program.name} ({self._files.path}): {reason}")


@dataclass
class FakeEngine:
    """An engine as values: its files, and whether it runs. ``refuse`` is what its checker says."""

    program: Program
    files: dict[str, str] = field(default_factory=dict)
    alive: bool = False
    kept: bool = False
    absent: bool = False
    refuse: str = ""
    calls: list[str] = field(default_factory=list)
    failures: Failures = field(default_factory=Failures)

    @property
    def place(self) -> Path:
        return _RUN_DIR / self.program.name / self.program.file

    def missing(self) -> str:
        return f"{self.program.name} is not installed here" if self.absent else ""

    @fallible("engine.read")
    def read(self, name: str = "") -> str | None:
        return self.files.get(name or self.program.file)

    @fallible("engine.write")
    def write(self, name: str, text: str) -> None:
        self.files[name] = text

    @fallible("engine.check")
    def check(self, text: str) -> str:  # noqa: ARG002
        return self.refuse

    @fallible("engine.put")
    def put(self, text: str) -> None:
        self.files[self.program.file] = text
        self.alive = self.alive or self.kept

    def runs(self) -> bool:
        return self.alive

    def pid(self) -> int | None:
        return 4711 if self.alive else None

    @fallible("engine.start")
    def start(self) -> None:
        self.calls.append("start")
        self.alive = True

    @fallible("engine.reload")
    def reload(self) -> None:
        self.calls.append("reload")

    @fallible("engine.stop")
    def stop(self) -> None:
        self.calls.append("stop")
        self.files.pop(self.program.file, None)
        self.alive = False
