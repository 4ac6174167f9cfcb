"""How backends count where no daemon checks them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from tula.engine.reader import Adapters, Reader
from tula.engine.store import Store
from tula.model.config import Config
from tula.model.errors import KernelError
from tula.model.health import BackendName, BackendStatus, Health
from tula.model.problem import ProblemsError
from tula.plan.backend_status import plan_backend_statuses
from tula.plan.first_pass import (
    NONE_WAIT,
    Waiting,
    guarded_services,
    unchecked_problems,
    waiting_beside,
)

StatusesOf = Mapping[BackendName, BackendStatus]

_LEFT_DOWN = "the kernel has no entry for it: it was down when the daemon ended"


def require_daemon(config: Config) -> None:
    """Raises ProblemsError for a configuration that only a daemon can run."""
    problems = list(unchecked_problems(config))
    if problems:
        raise ProblemsError(problems)


class Unmonitored(Reader):
    """Reads how backends count by the kernel and by the operator alone.

    Methods raise KernelError and StateError.
    """

    def __init__(self, adapters: Adapters, store: Store, clock: Callable[[], float]) -> None:
        """``clock`` tells seconds of the boot clock."""
        super().__init__(adapters, store)
        self._clock = clock

    def without_monitors(self, config: Config) -> StatusesOf:
        """How backends count where nothing is known but the operator's overrides."""
        overrides, waiting = self._store.overrides(), self._waiting(config)
        return plan_backend_statuses(config, {}, overrides, self._clock(), waiting=waiting).of

    def _waiting(self, config: Config) -> Waiting:
        """Without a daemon nobody passes a check: those that wait are the ones without packets."""
        if next(guarded_services(config), None) is None:
            return NONE_WAIT
        return waiting_beside(config, self.serving(config))

    def left_statuses(self, config: Config) -> StatusesOf:
        """How backends count in what a daemon left when it ended: those that were down then get
        nothing until the next apply, or the next daemon."""
        try:
            down, waiting = self.missing(config), self._waiting(config)
        except KernelError:  # a newer Tula's table: not to be read, but the rest can be told
            down, waiting = frozenset(), NONE_WAIT
        now, overrides = self._clock(), self._store.overrides()
        findings = {name: Health(False, now, _LEFT_DOWN) for name in down}
        return plan_backend_statuses(config, findings, overrides, now, waiting=waiting).of
