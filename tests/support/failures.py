"""Errors at any call of any adapter, in the kernel's place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

from tula.engine.reader import Adapters
from tula.model.errors import KernelError


class Failures:
    """Says which call of an adapter fails: the ``due``-th from now, once; None: no one does."""

    def __init__(self) -> None:
        self.due: int | None = None
        self.failed: list[str] = []

    def wrap(self, adapters: Adapters) -> Adapters:
        """The adapters, whose methods fail when it is their turn."""
        wrapped = {
            f.name: _Failing(getattr(adapters, f.name), f.name, self) for f in fields(adapters)
        }
        return replace(adapters, **wrapped)  # type: ignore[arg-type]

    def meet(self, call: str) -> None:
        """Raises KernelError if this call is the one."""
        if self.due is not None:
            self.due -= 1
            if self.due < 0:
                self.due = None
                self.failed.append(call)
                raise KernelError(f"{call}: injected")


class _Failing:
    def __init__(self, adapter: object, name: str, failures: Failures) -> None:
        self._adapter = adapter
        self._name = name
        self._failures = failures

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._adapter, name)
        if not callable(found):
            return found
        call: Callable[..., Any] = found

        def met(*arguments: Any, **keywords: Any) -> Any:
            self._failures.meet(f"{self._name}.{name}")
            return call(*arguments, **keywords)

        return met
