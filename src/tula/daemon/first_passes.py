"""Remembers which backends wait for their first pass; see ``tula.plan.first_pass``."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tula.model.config import Config
from tula.model.health import BackendName, Health
from tula.plan.first_pass import (
    NONE_WAIT,
    Waiting,
    guarded_services,
    plan_waiting,
    still_waiting,
    waiting_beside,
)


class FirstPasses:
    """The writer's, in its thread. Nothing is on disk: who waits is not in the kernel."""

    def __init__(self, serving: Callable[[Config], frozenset[BackendName]]) -> None:
        """``serving`` tells which backends of a configuration the kernel sends packets to."""
        self._serving = serving
        self._config: Config | None = None
        self._before: tuple[Config, Waiting] | None = None
        self.waiting: Waiting = NONE_WAIT
        """Those of the configuration that runs."""

    def start(self, config: Config) -> None:
        """Takes the kernel as the daemon before left it with this configuration: who serves there
        has passed, or was taken without. Raises KernelError."""
        self._config, self.waiting = config, self._in_kernel(config)

    def plan(self, config: Config, findings: Mapping[BackendName, Health]) -> Waiting:
        """Those that wait once this configuration runs. Raises KernelError."""
        if self._config is None:
            waiting = self._in_kernel(config)
        elif self._before is not None and self._before[0] is config:
            waiting = self._before[1]  # it comes back: what served with it is not new
        else:
            waiting = plan_waiting(self._config, self.waiting, config)
        return still_waiting(waiting, findings)

    def take(self, config: Config, waiting: Waiting) -> None:
        """It runs, and these wait."""
        if self._config is not None and self._config is not config:
            self._before = (self._config, self.waiting)
        self._config, self.waiting = config, waiting

    def _in_kernel(self, config: Config) -> Waiting:
        if next(guarded_services(config), None) is None:
            return NONE_WAIT
        return waiting_beside(config, self._serving(config))
