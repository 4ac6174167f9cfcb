"""The control loop on the fake kernel, with its file and everything around it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from support.builders import make_backend, make_config, make_service
from support.configurations import render_config
from support.daemon import FakeChecker, FakeDaemon
from tula.daemon.checks import Checks
from tula.daemon.loop import ControlLoop
from tula.daemon.snapshot import Snapshot
from tula.daemon.supervisor import Supervisor
from tula.daemon.watch import FileWatch
from tula.kernel.clock import boot_time
from tula.model.config import Config
from tula.model.monitor import HealthMonitor, TcpProbe

TCP = HealthMonitor(TcpProbe())
CONFIG = make_config(make_service(backends=[make_backend(0), make_backend(1)], health=[TCP]))
OTHER = make_config(make_service(backends=[make_backend(0)], health=[TCP]))
B0 = ("web", "b0")


class Scene:
    """A loop, its file, and everything around it."""

    def __init__(
        self,
        directory: Path,
        *,
        file: Config | None = CONFIG,
        follow_file: bool = False,
        clock: Callable[[], float] = boot_time,
    ) -> None:
        """``file`` is what the file holds; None: what it did."""
        self.path = directory / "tula.yaml"
        if file is not None:
            self.write(file)
        self.daemon = FakeDaemon(directory / "state", CONFIG, clock=clock)
        self.checker = FakeChecker()
        self.kernel = self.daemon.machine.nftables
        self.supervisor = Supervisor(self.daemon.events, lambda _: asyncio.sleep(0.01))
        self.loop = ControlLoop(
            self.daemon.writer,
            Checks(self.checker),  # type: ignore[arg-type]
            self.daemon.kernel_events,
            FileWatch(self.path),
            self.daemon.machine.sysctls,
            self.supervisor,
            follow_file=follow_file,
        )

    def write(self, config: Config) -> None:
        self.path.write_text(render_config(config))

    @property
    def snapshot(self) -> Snapshot:
        return self.loop.snapshot

    @property
    def cycles(self) -> int:
        return sum(self.snapshot.cycles.outcomes.values())

    async def until(self, condition: Callable[[], object]) -> None:
        """Waits for it; the test's own time limit ends a wait in vain."""
        while not condition():
            await asyncio.sleep(0.002)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        task = asyncio.create_task(self.loop.run())
        try:
            await self.loop.started.wait()
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            self.loop.close()
