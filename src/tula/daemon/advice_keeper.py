"""Keeps on disk what checks say of backends, beside the writer: a slow disk delays nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import structlog

from tula.engine.advice_file import AdviceFile, Said
from tula.model.config import Config
from tula.model.health import BackendName, Health

_PAUSE = 1.0
"""Seconds between two looks: a crash forgets what was said within them."""


class AdviceKeeper:
    """Writes the file when something else is said than it holds."""

    def __init__(
        self,
        file: AdviceFile,
        config: Callable[[], Config | None],
        findings: Callable[[], Mapping[BackendName, Health]],
        pause: float = _PAUSE,
    ) -> None:
        """``config`` is the running one; None until its checks run, and with them what the file
        held is known. Both are asked in the event loop, and at the end."""
        self._file = file
        self._config = config
        self._findings = findings
        self._pause = pause
        self._written: tuple[Config, Said] | None = None
        self._failed = ""

    async def run(self) -> None:
        """Looks until it is cancelled."""
        while True:
            await asyncio.sleep(self._pause)
            wanted = self._wanted()
            if wanted is not None:
                await asyncio.to_thread(self._write, *wanted)

    def end(self) -> None:
        """Writes what is not written yet."""
        wanted = self._wanted()
        if wanted is not None:
            self._write(*wanted)

    def _wanted(self) -> tuple[Config, Said] | None:
        """What the file should hold, if it does not."""
        config = self._config()
        if config is None:
            return None
        names = {
            (service.name, backend.name)
            for service in config.services
            if any(monitor.advises for monitor in service.health)
            for backend in service.backends
        }
        findings = self._findings() if names else {}
        said = {
            name: finding.advice
            for name in names
            if (finding := findings.get(name)) is not None and finding.advice
        }
        if self._written is None and not said and not self._file.exists():
            self._written = config, said
        if self._written is not None:
            before, last = self._written
            if last == said and (before is config or not said):
                return None
        return config, said

    def _write(self, config: Config, said: Said) -> None:
        try:
            self._file.write(config, said)
        except OSError as error:
            reason = error.strerror or str(error)
            if reason != self._failed:
                structlog.get_logger("tula").warning("advice-not-saved", message=reason)
            self._failed = reason
            return
        self._failed, self._written = "", (config, said)
