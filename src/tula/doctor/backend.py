"""What a backend can tell of itself. Its checks are functions like the balancer's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from tula.model.config import Config
from tula.model.finding import Finding

BackendCheck = Callable[[Config, str], Iterable[Finding]]
"""Looks at this machine, which is the backend of that name. Raises KernelError."""

BACKEND_CHECKS: Sequence[tuple[str, BackendCheck]] = ()
"""What each tests, in a few words, and the check."""
