"""The daemon, run in a host of the lab and asked by its own commands."""

from __future__ import annotations

import json
import os
import socket
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tula.cli.client import SOCKET, Client, DaemonError, NoDaemonError, find_daemon
from tula.lab import Host, LabError
from tula.lab.process import Process
from tula.lab.wait import wait_until

_START = 180.0 if os.environ.get("TULA_VM") else 60.0
"""Seconds: the VM is emulated."""

Backends = dict[str, dict[str, Any]]
"""By ``service/backend``: what status shows of it."""


class Running:
    """``tula run`` in a host, by a configuration's file; ``log`` is what it said."""

    def __init__(
        self, host: Host, configuration: Path, *options: str, before: tuple[str, ...] = ()
    ) -> None:
        """``before`` is the program that becomes the daemon."""
        self._before = before
        self.host = host
        self.configuration = configuration
        self._options = options
        self._process: Process | None = None
        self._output = configuration.with_name("daemon.log")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            print(self.log)
        self.stop()

    @property
    def log(self) -> str:
        """What the daemon wrote, all of its lives together."""
        return self._output.read_text() if self._output.exists() else ""

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Starts it, and waits until it answers and has been through its first cycle."""
        self.spawn()
        self.wait_until_it_answers()

    def spawn(self) -> None:
        """Only starts it."""
        with self._output.open("a") as output:
            self._process = self.launch(output.fileno())

    def launch(self, output: int) -> Process:
        """Its process."""
        command = [sys.executable, "-m", "tula", "run", "-f", self.configuration, *self._options]
        return self.host.popen(
            [*self._before, *command], stdout=output, stderr=output, env=self.host.environment()
        )

    @property
    def run_dir(self) -> Path:
        """Where its socket is."""
        return Path(self.host.environment()["TULA_RUN_DIR"])

    def wait_until_it_answers(self, within: float = _START) -> None:
        """Until it has a configuration and says how that stands."""
        try:
            wait_until(self._answers, within, "the daemon")
        except LabError as error:
            raise LabError(f"{error}: {self.log or 'it said nothing'}") from None

    def kill(self) -> None:
        """``kill -9``."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(60)

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(60)

    def status(self) -> dict[str, Any]:
        """What ``tula status --json`` prints."""
        answer = self.client().get("/status")
        assert isinstance(answer, dict)
        return answer

    def backends(self) -> Backends:
        """What that says of backends."""
        return {
            f"{service['name']}/{backend['name']}": backend
            for service in self.status()["services"]
            for backend in service["backends"]
        }

    def states(self) -> dict[str, str]:
        """The states alone."""
        return {name: backend["state"] for name, backend in self.backends().items()}

    def wait_for(self, *, within: float = 60.0, **states: str) -> Backends:
        """Waits until these backends (by name alone) have these states."""

        def reached() -> Backends | None:
            found = self.backends()
            by_name = {name.partition("/")[2].replace("-", "_"): b for name, b in found.items()}
            there = all(by_name[name]["state"] == state for name, state in states.items())
            return found if there else None

        try:
            return wait_until(reached, within, f"states {states}")
        except LabError as error:
            raise LabError(f"{error}; they are {json.dumps(self.backends(), indent=1)}") from None

    def wait_for_reason(self, backend: str, part: str, within: float = 60.0) -> str:
        """Waits until the reason of ``service/backend`` has this in it."""

        def told() -> str:
            reason = str(self.backends()[backend]["reason"])
            return reason if part in reason else ""

        try:
            return wait_until(told, within, f"{part!r} of {backend}")
        except LabError as error:
            raise LabError(f"{error}; it says: {self.backends()[backend]['reason']}") from None

    @property
    def state(self) -> Path:
        """Its state directory, seen with its own mounts."""
        return Path(f"/proc/{self.pid}/root{self.host.environment()['TULA_STATE_DIR']}")

    @property
    def problems(self) -> str:
        """What status says that it cannot do."""
        return "\n".join(self.status()["daemon"]["problems"])

    def wait_for_problem(self, part: str, within: float = 60.0) -> None:
        """Waits until status tells of a problem with this in it."""
        wait_until(lambda: part in self.problems, within, f"a problem: {part}")

    def wait_for_weight(self, backend: str, weight: int, within: float = 60.0) -> None:
        """Waits until a configuration runs that gives ``service/backend`` this weight."""
        wait_until(lambda: self.backends()[backend]["weight"] == weight, within, f"{weight}")

    def events(self) -> list[dict[str, Any]]:
        """All that it remembers."""
        found: list[dict[str, Any]] = self.client().get("/events", limit=1000)["events"]
        return found

    def cycles(self) -> float:
        """How many cycles its writer has run."""
        return self.figure("tula_reconcile_seconds_count")

    def wait_until_at_rest(self, within: float = 60.0) -> None:
        """Whatever went before has come to rest when a second passes without a cycle."""

        def at_rest() -> bool:
            before = self.cycles()
            time.sleep(1.0)
            return self.cycles() == before

        wait_until(at_rest, within, "a daemon at rest")

    def figure(self, name: str) -> float:
        """The sum of a metric's samples, as ``/metrics`` shows them."""
        with socket.socket(socket.AF_UNIX) as asked:
            asked.connect(str(self.run_dir / SOCKET))
            asked.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
            text = b"".join(iter(lambda: asked.recv(65536), b"")).decode()
        samples = (line.rpartition(" ") for line in text.splitlines())
        return sum(float(value) for what, _, value in samples if what.partition("{")[0] == name)

    def client(self) -> Client:
        """Asks it."""
        client = find_daemon(self.run_dir)
        assert client is not None, self.log
        return client

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            raise LabError(f"the daemon ended: {self.log}")
        client = find_daemon(self.run_dir)
        try:
            return client is not None and bool(client.get("/status")["daemon"]["last_cycle"])
        except (NoDaemonError, DaemonError):  # not yet, or not any more
            return False
